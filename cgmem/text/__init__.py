"""Text from outside and for people: sizes, ids, secrets, the words of errors. Pure."""
