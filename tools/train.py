"""Train a student: python tools/train.py … is `mmkd train …`."""

from mmkd.commands.train import main

if __name__ == '__main__':
    main()
