"""What the Task Tool's helper starts for an agent, and what it remembers of it."""
