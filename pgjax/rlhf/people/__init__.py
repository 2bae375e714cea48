"""People who rank outputs at a page: tasks, who is asked which, the file of answers, and the page.

The page needs `pip install "pgjax[people]"`; the rest does not. What is listed here is public; the rest may change.
"""

from pgjax.rlhf.people.desk import Desk, DeskSettings, View
from pgjax.rlhf.people.server import Page, collect_rankings, print_links, serve
from pgjax.rlhf.people.store import Store
from pgjax.rlhf.people.tasks import MOST_OUTPUTS, Task, load_tasks, save_tasks, tasks_of_tokens, tokens_of_tasks

__all__ = [
    "MOST_OUTPUTS",
    "Desk",
    "DeskSettings",
    "Page",
    "Store",
    "Task",
    "View",
    "collect_rankings",
    "load_tasks",
    "print_links",
    "save_tasks",
    "serve",
    "tasks_of_tokens",
    "tokens_of_tasks",
]
