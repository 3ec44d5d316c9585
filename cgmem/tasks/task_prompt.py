"""The task of an agent, and the prompt that tells it. Pure text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Task(NamedTuple):
    """What `create_agent_subprocess` was told of the task."""

    agent_type: str
    task_description: str
    requirements: Sequence[str] = ()
    deliverables: Sequence[str] = ()
    dependencies: Sequence[str] = ()
    priority: str = "medium"
    memory_categories: Sequence[str] = ()
    escalation_triggers: Sequence[str] = ()
    integration_notes: str = ""

    def prompt(self) -> str:
        """Return the prompt: who, the task, then one section for each thing that was said."""
        sections = [f"**{self.agent_type.replace('_', ' ').title()}**: {self.task_description}"]
        for title, items in (
            ("Requirements", self.requirements),
            ("Deliverables", self.deliverables),
            ("Dependencies", self.dependencies),
            ("Memory categories", self.memory_categories),
            ("Escalate when", self.escalation_triggers),
        ):
            if items:
                sections.append("\n".join([f"{title}:", *(f"- {item}" for item in items)]))
        if self.priority != "medium":
            sections.append(f"Priority: {self.priority}")
        if self.integration_notes:
            sections.append(f"Notes: {self.integration_notes}")
        return "\n\n".join(sections)
