"""Running a grid: who makes the runs, and what is finished."""
