"""Run a maker: python tools/make.py … is `mmkd make …`."""

from mmkd.commands.make import main

if __name__ == '__main__':
    main()
