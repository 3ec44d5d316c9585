"""The mechanisms of cgmem, one file each. They know no policy.

`cgmem.selector` loads them by name; nothing else does.
"""
