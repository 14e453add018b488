"""What the data are: tasks (label set, templates, words) and tables of texts and labels."""

from ltprompt.tasks.table import Rows, Table, check_balance, label_counts, read_rows, rows_from
from ltprompt.tasks.task import Task, load_task, parse_task, starter_text, task_names

__all__ = [
    "Rows",
    "Table",
    "Task",
    "check_balance",
    "label_counts",
    "load_task",
    "parse_task",
    "read_rows",
    "rows_from",
    "starter_text",
    "task_names",
]
