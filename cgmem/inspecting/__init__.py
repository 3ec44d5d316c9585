"""Live scopes seen and told what to do from outside, and what is made of recordings."""
