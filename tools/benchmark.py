"""Measure a distillation: python tools/benchmark.py … is `mmkd benchmark …`."""

from mmkd.commands.benchmark import main

if __name__ == '__main__':
    main()
