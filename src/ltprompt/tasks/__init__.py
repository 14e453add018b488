"""What the data are: tasks (label set, templates, words) and tables of texts and labels."""

from ltprompt.tasks.table import Rows, check_balance, read_rows, rows_from
from ltprompt.tasks.task import Task, load_task, parse_task, task_names

__all__ = ["Rows", "Task", "check_balance", "load_task", "parse_task", "read_rows", "rows_from", "task_names"]
