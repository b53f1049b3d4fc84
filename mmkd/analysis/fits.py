"""Methods that fit a pair of networks: each is planned, with the options that refusals suggest."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mmkd import methods
from mmkd.building import build_objective
from mmkd.objective import Objective
from mmkd.options import options_of
from mmkd.plan import Plan
from mmkd.plan.probe import Probes
from mmkd.teacher import Teacher

#: how many pieces of advice are followed one after another
DEPTH = 3
_WORD = re.compile(r'(\w+)=')
_PLAIN = re.compile(r"'[^']*'|-?\d+(?:\.\d+)?|True|False|None")
_JOINT = re.compile(r'\s*,\s*')


@dataclass
class MethodFit:
    """Whether one method fits one pair, and with which options.

    Attributes:
        method (str): its name.
        options (dict): what has to be set, nothing where the method fits as it is.
        reason (str): why it is refused, with the options given here; empty where it fits.
        advice (list[tuple[dict, str]]): options that a refusal offered and what came of each, empty
            where that planned.
        crash (str): an exception that is no refusal, with its type.
    """

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    reason: str = ''
    advice: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    crash: str = ''

    @property
    def verdict(self) -> str:
        """``'fits'``, ``'fits with …'`` or ``'refused: …'`` with the first sentence of why."""
        if self.crash:
            return f'refused, by an error of the program: {self.crash}'
        if self.reason:
            return f'refused: {first_sentence(self.reason)}'
        return 'fits' if not self.options else f'fits with {written(self.options)}'


class Pair:
    """A student and a teacher on which methods are tried one after another.

    Networks are probed once for all methods whose taps they share.

    Args:
        student (nn.Module): as built, not yet a Distiller's.
        teacher (Teacher): built; it listens to the method that was planned last.
    """

    def __init__(self, student: nn.Module, teacher: Teacher) -> None:
        self.student, self.teacher = student, teacher
        self.probes = Probes()

    def plan(self, method: str, options: Mapping[str, Any] | None = None) -> Plan:
        """Plan one method, as the build of a Distiller would.

        Raises:
            ValueError, TypeError: it is refused.
        """
        entry = dict(type=method if '.' in method else f'mmkd.{method}', **dict(options or {}))
        objective = build_objective(entry)
        student = self.student
        if type(objective).inherit is not Objective.inherit:
            student = copy.deepcopy(student)  # which is given weights of the teacher
        name = method.rpartition('.')[2]
        teachers = {'teacher': self.teacher}
        plan = Plan(student, teachers, {name: objective}, probes=self.probes)
        plan.bind()
        plan.set_up(self.probes(plan.requests()))
        return plan

    @property
    def size(self) -> int:
        """Side of the images on which the networks were probed."""
        return max((one.size for found in self.probes.known.values() for one in found), default=0)

    def fit(self, method: str) -> MethodFit:
        """Plan a method; where it is refused, follow the advice of the message."""
        result = MethodFit(method)
        first = ''
        waiting: list[dict[str, Any]] = [{}]
        for _ in range(DEPTH + 1):
            following = []
            for options in waiting:
                reason, result.crash = self._refusal(method, options)
                if options:
                    result.advice.append((options, reason or result.crash))
                first = first or reason
                if not reason or result.crash:
                    result.options, result.reason = options, ''
                    return result
                known = options_of(_class(method))
                found = (dict(options, **new) for new in advised(reason, known))
                following += [new for new in found if new not in (options, *waiting)]
            waiting = following
        result.reason = first
        return result

    def _refusal(self, method: str, options: Mapping[str, Any]) -> tuple[str, str]:
        """The refusal of a method, and its crash; both empty where it fits."""
        try:
            self.plan(method, options)
        except (ValueError, TypeError) as error:
            text = str(error)
            named = text.startswith('objective ') or type(error) is not TypeError
            return (text, '') if named else ('', f'TypeError: {text}')
        except Exception as error:
            return '', f'{type(error).__name__}: {error}'
        return '', ''

    def fits(self, names: Sequence[str] | None = None) -> Iterator[MethodFit]:
        """:meth:`fit` for each method, all of mmkd's by default."""
        for name in methods.names() if names is None else names:
            yield self.fit(name)


def _class(method: str) -> type:
    return getattr(methods, method.rpartition('.')[2])


def advised(message: str, known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Options that a message suggests, such as ``resize='student'``.

    Those separated by a comma alone belong together. What is not ``known`` to the method is not
    advice about it, nor is what follows another method's name and ``with``.
    """
    groups: list[dict[str, Any]] = []
    end, position = -1, 0
    while match := _WORD.search(message, position):
        position = match.end()
        length = _literal(message[position:])
        if not length:
            continue
        value = ast.literal_eval(message[position : position + length])
        joined = end >= 0 and _JOINT.fullmatch(message[end : match.start()])
        if joined and groups:
            groups[-1][match[1]] = value
        elif not re.search(r'(found|but|\w+ with) $', message[: match.start()]):
            groups.append({match[1]: value})
        end = position = position + length
    return [group for group in groups if all(key in known for key in group)]


def _literal(text: str) -> int:
    """Length of the Python literal that a text begins with, 0 if there is none."""
    if text[:1] in '[({':
        for end in (i + 1 for i, letter in enumerate(text) if letter in '])}'):
            try:
                ast.literal_eval(text[:end])
            except (ValueError, SyntaxError):
                continue
            return end
        return 0
    match = _PLAIN.match(text)
    return match.end() if match else 0


def written(options: Mapping[str, Any]) -> str:
    """As in a config: ``resize='student', level_map='common'``."""
    return ', '.join(f'{key}={value!r}' for key, value in options.items())


def first_sentence(message: str) -> str:
    """Without the objective's name in front."""
    text = re.sub(r"^objective '\w+': ", '', ' '.join(message.split()))
    return re.split(r'\.\s+(?=[A-Z])', text)[0].rstrip('.')


def table(fits: Sequence[MethodFit]) -> str:
    """A line a method, those that fit first."""
    order = sorted(fits, key=lambda fit: (bool(fit.reason or fit.crash), bool(fit.options)))
    width = max((len(fit.method) for fit in order), default=0)
    return '\n'.join(f'{fit.method:{width}s}  {fit.verdict}' for fit in order)
