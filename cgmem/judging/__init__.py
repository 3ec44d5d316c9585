"""The policy, pure: from samples to levels, alerts, actions and verdicts."""
