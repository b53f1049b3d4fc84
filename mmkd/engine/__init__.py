"""Running a distillation: the Runner, its hooks, launching, measuring."""
