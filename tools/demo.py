"""Distillation in a few minutes on a CPU: python tools/demo.py … is `mmkd demo …`."""

from mmkd.commands.demo import main

if __name__ == '__main__':
    main()
