"""Packaging. The wheel carries configs/ and tools/ as mmkd/.mim/, where OpenMMLab's tools look."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
CARRIED = ('configs', 'tools')


class BuildWithConfigs(build_py):
    """Copy configs and tools into the package that is built, leaving the source tree alone."""

    def run(self):
        super().run()
        if self.editable_mode:  # the checkout's own folders are used
            return
        carried = Path(self.build_lib, 'mmkd', '.mim')
        shutil.rmtree(carried, ignore_errors=True)
        for folder in CARRIED:
            ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
            shutil.copytree(HERE / folder, carried / folder, ignore=ignored)


def read(name: str) -> str:
    return (HERE / name).read_text(encoding='utf-8')


def requirements(name: str) -> list[str]:
    lines = (line.partition('#')[0].strip() for line in read(f'requirements/{name}').splitlines())
    return [line for line in lines if line]


setup(
    name='mmkd',
    version=re.search(r"__version__ = '(.+)'", read('mmkd/version.py')).group(1),
    description='Knowledge distillation for mmdet and mmseg: one method, one file',
    long_description=read('README.md'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmkd', 'mmkd.*']),
    entry_points={'console_scripts': ['mmkd = mmkd.commands:main']},
    package_data={'mmkd': ['py.typed']},
    install_requires=requirements('runtime.txt'),
    extras_require={
        'openmmlab': ['torch>=2.6', *requirements('openmmlab.txt')],
        # Not with openmmlab: beside a torch for the CPU alone, pip's torchvision breaks mmengine.
        'gpu': ['torchvision'],
        'safetensors': ['safetensors'],
        'transformers': ['transformers', 'safetensors'],
        'timm': ['timm', 'torchvision', 'safetensors'],
        'onnx': ['onnx', 'onnxscript', 'onnxruntime'],
        'prune': ['torch-pruning'],
        'tests': requirements('tests.txt'),
    },
    cmdclass={'build_py': BuildWithConfigs},
    zip_safe=False,
)
