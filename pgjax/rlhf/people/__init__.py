"""People who rank outputs at a page: tasks, who is asked which, the file of answers, and the page.

The page needs `pip install "pgjax[people]"`; the rest does not. What is listed here is public; the rest may change.
"""

from pgjax.rlhf.people.desk import Desk, DeskSettings, View
from pgjax.rlhf.people.store import Store
from pgjax.rlhf.people.tasks import Task, load_tasks, save_tasks, tasks_of_tokens

__all__ = [
    "Desk",
    "DeskSettings",
    "Store",
    "Task",
    "View",
    "load_tasks",
    "save_tasks",
    "tasks_of_tokens",
]
