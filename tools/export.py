"""A student as an ONNX file: python tools/export.py … is `mmkd export …`."""

from mmkd.commands.export import main

if __name__ == '__main__':
    main()
