"""Running a distillation: Runner, loops, hooks, random states, optimisers, launching."""
