"""Which versions mmkd needs, and which it finds.

`check_environment` runs when mmkd is imported and reads package metadata only. For a table of
everything relevant, also where mmkd cannot be imported: `python -m mmkd.environment`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

IGNORE = 'MMKD_IGNORE_ENVIRONMENT'


class Package(NamedTuple):
    """An import package, the version mmkd needs, and the distributions that provide it."""

    module: str
    wanted: str
    upstream: tuple[str, ...]
    fork: str = ''
    required: bool = False

    @property
    def distributions(self) -> tuple[str, ...]:
        return (*self.upstream, self.fork) if self.fork else self.upstream


PACKAGES = (
    Package('torch', '>=2.6', ('torch',), required=True),
    Package('mmengine', '>=0.10', ('mmengine', 'mmengine-lite'), 'onedl-mmengine', required=True),
    Package('mmcv', '>=2.0,<3', ('mmcv', 'mmcv-lite', 'mmcv-full'), 'onedl-mmcv', required=True),
    Package('mmdet', '>=3.0,<4', ('mmdet',), 'onedl-mmdetection'),
    Package('mmseg', '>=1.0,<2', ('mmsegmentation',), 'onedl-mmsegmentation'),
)

# Upstream's releases up to these, its last ones, refuse any later mmcv when they are imported.
MMCV_LIMIT = '<2.2.0'
LIMITED = (('mmdet', 'mmdet', '3.3.0'), ('mmseg', 'mmsegmentation', '1.2.2'))


class EnvironmentProblem(RuntimeError):
    """The installed packages cannot work together; the message says which, and what to run."""


def installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def fits(version: str, wanted: str) -> bool:
    """Whether a version is in a range such as `'>=2.0,<3'`; pre-releases count as the release."""
    try:
        return Version(version).base_version in SpecifierSet(wanted)
    except InvalidVersion:
        return False


def find_problems(
    version_of: Callable[[str], str | None] = installed_version,
    is_importable: Callable[[str], bool] = importable,
) -> list[str]:
    """One or two sentences for each mismatch, with the command that repairs it.

    Args:
        version_of: Distribution name to its installed version, `None` where there is none.
        is_importable: Whether a module without a distribution is importable all the same, as a
            source tree on `PYTHONPATH` is.
    """
    found = {
        package.module: {
            name: version for name in package.distributions if (version := version_of(name))
        }
        for package in PACKAGES
    }
    keep_fork = _keep_fork(found)
    problems = []
    for package in PACKAGES:
        versions = found[package.module]
        if package.fork in versions and len(versions) > 1:
            problems.append(_conflict(package, versions, keep_fork))
        elif versions:
            problems += _misfits(package, versions)
        elif package.required and not is_importable(package.module):
            install = package.fork or f'"{package.module}{package.wanted}"'
            problems.append(
                f'{package.module} is not installed, mmkd needs {package.module}{package.wanted}. '
                f'Run: pip install {install}'
            )
    return problems + _mmcv_problems(found)


def _keep_fork(found: dict[str, dict[str, str]]) -> bool:
    """Whether most of what is installed comes from the forks: that family is the one to keep."""
    forks = sum(package.fork in found[package.module] for package in PACKAGES if package.fork)
    upstream = sum(
        any(name in found[package.module] for name in package.upstream)
        for package in PACKAGES
        if package.fork
    )
    return forks >= upstream


def _build_options(distribution: str) -> str:
    """open-mmlab's mmcv does not build in pip's isolation; the fork does, without operators."""
    return '--no-build-isolation ' if distribution == 'mmcv' else ''


def _conflict(package: Package, versions: dict[str, str], keep_fork: bool) -> str:
    listed = ' and '.join(f'{name} {version}' for name, version in versions.items())
    kept = package.fork if keep_fork else next(name for name in versions if name != package.fork)
    return (
        f'{listed} are both installed and overwrite each other, because both provide the import '
        f'package {package.module}. Keep one family everywhere, here {kept}. '
        f'Run: pip uninstall -y {" ".join(versions)} && '
        f'pip install --no-deps {_build_options(kept)}{kept}=={versions[kept]}'
    )


def _misfits(package: Package, versions: dict[str, str]) -> list[str]:
    return [
        f'{name} {version} is installed, mmkd needs {name}{package.wanted}. '
        f'Run: pip install {_build_options(name)}"{name}{package.wanted}"'
        for name, version in versions.items()
        if not fits(version, package.wanted)
    ]


def _mmcv_problems(found: dict[str, dict[str, str]]) -> list[str]:
    """The versions of mmcv that the installed mmdet and mmseg accept."""
    problems = []
    mmcv = found['mmcv']
    too_new = [
        f'{name} {version}' for name, version in mmcv.items() if not fits(version, MMCV_LIMIT)
    ]
    for module, name, last in LIMITED:
        version = found[module].get(name)
        one_family = len(mmcv) == len(found[module]) == 1
        if version and too_new and one_family and fits(version, f'<={last}'):
            fork = next(package.fork for package in PACKAGES if name in package.upstream)
            older = f'pip uninstall -y {" ".join(mmcv)} && pip install "mmcv-lite{MMCV_LIMIT}"'
            newer = f'pip uninstall -y {name} && pip install {fork}'
            problems.append(
                f'{name} {version} refuses {too_new[0]}, it accepts mmcv{MMCV_LIMIT} only. '
                f'Run: {newer if "onedl-mmcv" in mmcv else older}'
            )
    return problems


def check_environment() -> None:
    """Raise `EnvironmentProblem` if what is installed cannot work together.

    Raises:
        EnvironmentProblem: Unless the environment variable `MMKD_IGNORE_ENVIRONMENT` is set.
    """
    if sys.argv[:1] == ['-m'] and 'mmkd.environment' in sys.orig_argv:
        # The table is most wanted where the import of mmkd, which goes before it, would fail.
        raise SystemExit(main())
    if os.environ.get(IGNORE):
        return
    problems = find_problems()
    if problems:
        raise EnvironmentProblem(
            'mmkd cannot work with the packages installed here:\n'
            + '\n'.join(f'  {number}. {text}' for number, text in enumerate(problems, 1))
            + f'\n`python -m mmkd.environment` lists them; {IGNORE}=1 goes on regardless.'
        )


def report() -> list[tuple[str, str, str]]:
    """Rows of name, installed version, supported range."""
    rows = [('python', platform.python_version(), '>=3.10'), ('system', platform.platform(), '')]
    for package in PACKAGES:
        versions = {name: installed_version(name) for name in package.distributions}
        listed = ' and '.join(f'{name} {value}' for name, value in versions.items() if value)
        missing = 'a source tree' if importable(package.module) else 'not installed'
        wanted = package.wanted + ('' if package.required else ' (optional)')
        rows.append((package.module, listed or missing, wanted))
    rows += [
        ('mmcv operators', _try_import('mmkd.operators', _describe_operators), ''),
        ('CUDA', _try_import('torch', _describe_cuda), ''),
        ('numpy', installed_version('numpy') or 'not installed', ''),
    ]
    for name in ('opencv-python', 'opencv-python-headless'):
        rows.append((name, installed_version(name) or 'not installed', ''))
    return rows


def _try_import(module: str, describe: Callable) -> str:
    try:
        importlib.import_module('torch')  # an extension finds its libraries only after torch
        return describe(importlib.import_module(module))
    except Exception as error:  # a broken installation fails in any way it likes
        return f'cannot be imported: {str(error).splitlines()[0] if str(error) else error!r}'


def _describe_operators(operators) -> str:
    operators.install()
    return operators.describe()


def _describe_cuda(torch) -> str:
    if not torch.cuda.is_available():
        return f'none in use (torch built with {torch.version.cuda or "no CUDA"})'
    names = (torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return f'{torch.version.cuda}: {", ".join(names)}'


def main() -> int:
    """Print the table and the verdict; 1 where something does not fit."""
    rows = report()
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, found, wanted in rows:
        print(f'{name:{widths[0]}}  {found:{widths[1]}}  {wanted}'.rstrip())
    problems = find_problems()
    print('\n'.join(f'! {text}' for text in problems) or 'These versions fit.')
    return int(bool(problems))
