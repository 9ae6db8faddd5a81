"""What may a beamline change of scans that it did not write? Steps around their phases, defaults, bounds.

    class Shutter(ScanModifier):
        \"\"\"Open the shutter while points are taken.\"\"\"

        devices = ("shutter",)
        defaults = {"line_scan": {"exp_time": 0.1}}

        @before("points")
        def open(self) -> Steps:
            yield Move({"shutter": 1})

        @after("points")
        @cleanup()
        def close(self) -> Steps:
            yield Move({"shutter": 0})

A modifier is offered through an entry point of the group `bec.scan_modifiers`. Its steps are the scan's steps: they are
journalled and replayed with the scan's own. What is said of a scan's generator holds for them, too: the same arguments
and results give the same steps.

    phase      what the scan server does in it                              before, after    instead
    open       the scan is announced, first of all                          both after that  no
    stage      devices are staged                                           yes              no
    baseline   what is read once is read                                    yes              yes
    points     the scan's own steps                                         yes              yes
    complete   devices are told that no point follows; then the motors of   yes              yes
               a relative scan go back
    unstage    devices are unstaged                                         yes              no
    close      the end is put on record, last of all                        both before that no
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args

from bec_lib.errors import ParameterError, PluginError
from bec_lib.messages import ModifierInfo, ParameterInfo, ScanInfo
from bec_lib.scans.scan import Scan, Steps
from bec_lib.scans.signature import did_you_mean, problems_of_parameter

PhaseName = Literal["open", "stage", "baseline", "points", "complete", "unstage", "close"]
PHASES: tuple[str, ...] = get_args(PhaseName)
REPLACEABLE = ("baseline", "points", "complete")
CLEANUP = "cleanup"

_Method = TypeVar("_Method", bound=Callable[..., Any])
_SLOTS = "__bec_slots__"
_LOWER, _UPPER = ("ge", "gt"), ("le", "lt")


@dataclass(frozen=True)
class Original:
    """A step of the scan server's own: what it does in this phase. Made by nobody but this module.

    phase: one of PHASES, or "return": the motors of a relative scan go back.
    """

    phase: str


@dataclass(frozen=True)
class Slot:
    """Where a method runs. when: before, after, instead, cleanup. scans: patterns of names, such as `line_*`."""

    when: str
    phase: str
    scans: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.when} {self.phase}".strip()


@dataclass(frozen=True)
class Change:
    """Of a published parameter; made by `change` or `hide`."""

    facts: Mapping[str, Any]
    hidden: bool = False


def before(phase: PhaseName, scans: str | Sequence[str] = "*") -> Callable[[_Method], _Method]:
    """The method's steps run before a phase of these scans; all names and patterns that fit count."""
    return _marked("before", phase, scans)


def after(phase: PhaseName, scans: str | Sequence[str] = "*") -> Callable[[_Method], _Method]:
    """The method's steps run after a phase. They do not if the scan is aborted before: see `cleanup`."""
    return _marked("after", phase, scans)


def instead(phase: PhaseName, scans: str | Sequence[str] = "*") -> Callable[[_Method], _Method]:
    """The method's steps run instead of a phase: baseline, points or complete. It gets one argument, `original`;
    `yield from original()` does what the phase does without it, once.
    """
    if phase in PHASES and phase not in REPLACEABLE:
        raise PluginError(
            f"the phase {phase} cannot be replaced, as every scan has to do it; use before or after. What can be is "
            f"{', '.join(REPLACEABLE)}"
        )
    return _marked("instead", phase, scans)


def cleanup(scans: str | Sequence[str] = "*") -> Callable[[_Method], _Method]:
    """The method's steps run if the scan is aborted, fails or is set completed, before its devices are unstaged. Only
    `Move` and `Call`, and no result is waited for. A halted scan does not clean up.
    """
    return _marked(CLEANUP, "", scans)


def change(
    *,
    default: Any = ...,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Sequence[Any] | None = None,
    doc: str = "",
) -> Change:
    """Of a parameter: another default (it is optional then), narrower bounds, fewer choices, another description."""
    facts: dict[str, Any] = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    facts = {name: bound for name, bound in facts.items() if bound is not None}
    if default is not ...:
        facts["default"] = default
    if choices is not None:
        facts["choices"] = list(choices)
    if doc:
        facts["doc"] = doc
    return Change(facts)


def hide(default: Any = ...) -> Change:
    """Of a parameter: nobody is offered it, it always has its default, or this one."""
    return Change({} if default is ... else {"default": default}, hidden=True)


class ScanModifier:
    """Root of all modifiers. One is made for each scan that is worked out.

    devices: which its steps use; they are the scan's own while it runs, and must be in the session. defaults: pattern of
    scan names -> parameter -> default. parameters: pattern -> parameter -> `change(...)` or `hide(...)`. What is said of a
    scan by its whole name goes before what a pattern says.
    scan: with all arguments checked; known_devices: names of the session's.
    """

    devices: ClassVar[Sequence[str]] = ()
    defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    parameters: ClassVar[Mapping[str, Mapping[str, Change]]] = {}

    def __init__(self, scan: Scan, known_devices: Collection[str]):
        self.scan = scan
        self.known_devices = known_devices

    def applies(self) -> bool:
        """Has it to do with this scan? For what its name does not tell, e.g. `"shutter" in self.known_devices`."""
        return True


@dataclass(frozen=True)
class Modification:
    """What modifiers make of one scan. info: the signature as it is published now. hidden: values of parameters that
    are not. modifiers: with steps for it. problem: why it cannot run, empty if it can.
    """

    info: ScanInfo
    hidden: Mapping[str, Any] = field(default_factory=dict)
    modifiers: tuple[type[ScanModifier], ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Hooks:
    """The modifiers of one scan that is worked out, ready to run."""

    name: str
    modifiers: tuple[ScanModifier, ...]

    @property
    def devices(self) -> list[str]:
        return list(dict.fromkeys(name for modifier in self.modifiers for name in modifier.devices))

    def steps(self, scan: Scan) -> Generator[Any, Any, None]:
        """All steps of the scan, those that the scan server has of its own among them."""
        for phase in PHASES:
            yield from self._of("before", phase)
            if phase not in ("open", "close"):
                original = _Once(phase, scan)
                replaced = self._method("instead", phase)
                yield from original() if replaced is None else replaced(original)
            if phase == "complete":
                yield Original("return")
            yield from self._of("after", phase)

    def cleanup(self) -> Iterator[Any]:
        """What is left to do after an abort."""
        yield from self._of(CLEANUP, "")

    def told(self) -> list[str]:
        """In words, a sentence for each modifier."""
        order = {phase: number for number, phase in enumerate(PHASES)}
        found = []
        for modifier in self.modifiers:
            slots = slots_of(type(modifier), self.name)
            slots.sort(key=lambda item: (order.get(item[1].phase, len(order)), item[1].when == "after"))
            does = ", ".join(
                f"{method} {'if it is aborted' if slot.when == CLEANUP else slot}" for method, slot in slots
            )
            found.append(f"The modifier {type(modifier).__name__} does {does}.")
        return found

    def _of(self, when: str, phase: str) -> Generator[Any, Any, None]:
        method = self._method(when, phase)
        if method is not None:
            yield from method()

    def _method(self, when: str, phase: str) -> Callable[..., Steps] | None:
        for modifier in self.modifiers:
            for name, slot in slots_of(type(modifier), self.name):
                if (slot.when, slot.phase) == (when, phase):
                    method: Callable[..., Steps] = getattr(modifier, name)
                    return method
        return None


class _Once:
    """What a phase does without a modifier; it can be done once."""

    def __init__(self, phase: str, scan: Scan):
        self._phase, self._scan, self._done = phase, scan, False

    def __call__(self) -> Generator[Any, Any, None]:
        if self._done:
            raise ParameterError(
                f"a modifier does the phase {self._phase} a second time; it can be done once"
            )
        self._done = True
        if self._phase == "points":
            yield from self._scan.run()
        else:
            yield Original(self._phase)


def hooks_of(modification: Modification | None, scan: Scan, known_devices: Collection[str]) -> Hooks | None:
    """The modifiers that have steps for this scan with these arguments; None if there are none."""
    if modification is None or not scan.is_scan:
        return None
    made = tuple(kind(scan, known_devices) for kind in modification.modifiers)
    applied = tuple(modifier for modifier in made if modifier.applies())
    return Hooks(modification.info.name, applied) if applied else None


def slots_of(kind: type[ScanModifier], scan_name: str | None = None) -> list[tuple[str, Slot]]:
    """Name of a method and where it runs; of those for one scan, or of all."""
    found = []
    for name, value in inspect.getmembers(kind):
        for slot in getattr(value, _SLOTS, ()):
            if scan_name is None or _fits(scan_name, slot.scans):
                found.append((name, slot))
    return found


def modify(
    infos: Mapping[str, ScanInfo], modifiers: Sequence[tuple[str, type[ScanModifier]]]
) -> tuple[dict[str, Modification], dict[str, str], dict[str, ModifierInfo]]:
    """What modifiers make of the scans that there are. modifiers: (plugin, class), in a fixed order.

    Returns scan -> what is made of it, plugin -> what is wrong with its modifiers, and what is to be told of each that
    is in force, by its name. A modifier with a wrong declaration is left out as a whole; a scan of which two modifiers
    want the same is refused, as neither may silently win.
    """
    failed: dict[str, str] = {}
    made: dict[str, Modification] = {}
    told: dict[str, ModifierInfo] = {}
    owners: dict[tuple[str, str], str] = {}
    clashes: dict[tuple[str, str], dict[str, list[str]]] = {}

    def report(plugin: str, reason: str) -> None:
        known = failed.get(plugin, "")
        if reason not in known:
            failed[plugin] = f"{known}; {reason}" if known else reason

    for plugin, kind in modifiers:
        label = f"{kind.__name__} of the plugin {plugin}"
        try:
            effects = _effects(kind, infos)
        except PluginError as error:
            report(plugin, f"the modifier {label}: {error.message}")
            continue
        name = f"{plugin}.{kind.__name__}"
        scans: dict[str, list[str]] = {}
        for scan, (slots, changes) in effects.items():
            before_it = made.get(scan) or Modification(infos[scan])
            problem = before_it.problem
            for what in [*map(str, slots), *(f"parameter {parameter}" for parameter in changes)]:
                owner = owners.setdefault((scan, what), label)
                if owner != label:
                    clashes.setdefault((owner, label), {}).setdefault(what, []).append(scan)
                    problem = problem or (
                        f"two modifiers want {_wanted(what)} {scan}: {owner}, and {label}. Change the "
                        "scans of one of them, or take it out"
                    )
            info, hidden = _changed(before_it.info, changes)
            made[scan] = replace(
                before_it,
                info=info.model_copy(update={"modifiers": [*info.modifiers, name]}),
                hidden={**before_it.hidden, **hidden},
                modifiers=(*before_it.modifiers, kind) if slots else before_it.modifiers,
                problem=problem,
            )
            scans[scan] = [*map(str, slots), *(_described(n, c) for n, c in changes.items())]
        told[name] = ModifierInfo(name=name, plugin=plugin, doc=inspect.getdoc(kind) or "", scans=scans)
    for (owner, label), wanted in clashes.items():
        what = "; ".join(f"{_wanted(slot)} {_some(scans_of_it)}" for slot, scans_of_it in wanted.items())
        reason = f"{owner}, and {label}, both want {what}. These scans cannot run until one of them gives way"
        for plugin in dict.fromkeys(text.rpartition(" ")[2] for text in (owner, label)):
            report(plugin, reason)
    return made, failed, told


def _marked(when: str, phase: str, scans: str | Sequence[str]) -> Callable[[_Method], _Method]:
    if when != CLEANUP and phase not in PHASES:
        raise PluginError(
            f"{when}({phase!r}): there is no such phase.{did_you_mean(phase, PHASES)} There are {', '.join(PHASES)}"
        )
    slot = Slot(when, phase, (scans,) if isinstance(scans, str) else tuple(scans))

    def mark(method: _Method) -> _Method:
        if not inspect.isgeneratorfunction(method):
            raise PluginError(
                f"{getattr(method, '__qualname__', method)} gives no steps: a method of a modifier is a generator, with "
                "at least one yield"
            )
        setattr(method, _SLOTS, (*getattr(method, _SLOTS, ()), slot))
        return method

    return mark


def _fits(scan: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(scan, pattern) for pattern in patterns)


def _effects(
    kind: type[ScanModifier], infos: Mapping[str, ScanInfo]
) -> dict[str, tuple[list[Slot], dict[str, Change]]]:
    """Scan -> the slots of it that a modifier fills, and the changes of its parameters. Raises PluginError."""
    changes: dict[str, dict[str, Change]] = {
        pattern: {name: change(default=value) for name, value in values.items()}
        for pattern, values in kind.defaults.items()
    }
    for pattern, wanted in kind.parameters.items():
        changes[pattern] = _merged(changes.get(pattern, {}), wanted)
    # What is said of one scan by its name goes before what is said of many.
    changes = dict(sorted(changes.items(), key=lambda item: item[0] in infos))
    slots = slots_of(kind)
    patterns = [*changes, *(pattern for _, slot in slots for pattern in slot.scans)]
    if not patterns:
        raise PluginError("it changes nothing: it has no steps, defaults or parameters")
    for pattern in patterns:
        if not any(_fits(scan, [pattern]) for scan in infos):
            raise PluginError(f"there is no scan {pattern!r}.{did_you_mean(pattern, infos)}")
    found: dict[str, tuple[list[Slot], dict[str, Change]]] = {}
    used: set[tuple[str, str]] = set()
    for scan, info in infos.items():
        filled = [slot for _, slot in slots if info.is_scan and _fits(scan, slot.scans)]
        doubled = [str(slot) for slot in filled if [str(s) for s in filled].count(str(slot)) > 1]
        if doubled:
            raise PluginError(f"it has two methods {doubled[0]} of {scan}; make them one")
        mine: dict[str, Change] = {}
        for pattern, wanted in changes.items():
            if not _fits(scan, [pattern]):
                continue
            for name, wish in wanted.items():
                if any(parameter.name == name for parameter in info.parameters):
                    mine = _merged(mine, {name: wish})
                    used.add((pattern, name))
        _changed(info, mine)
        if filled or mine:
            found[scan] = (filled, mine)
    for pattern, wanted in changes.items():
        for name in wanted:
            if (pattern, name) not in used:
                raise PluginError(f"no scan {pattern} has a parameter {name!r}")
    return found


def _merged(first: Mapping[str, Change], then: Mapping[str, Change]) -> dict[str, Change]:
    """Changes of parameters by name; where both say something, `then` has the last word."""
    made = dict(first)
    for name, wish in then.items():
        known = made.get(name, Change({}))
        made[name] = Change({**known.facts, **wish.facts}, known.hidden or wish.hidden)
    return made


def _changed(info: ScanInfo, changes: Mapping[str, Change]) -> tuple[ScanInfo, dict[str, Any]]:
    """The signature after changes, and the values of parameters that vanish from it. Raises PluginError."""
    parameters, hidden = [], {}
    for parameter in info.parameters:
        wish = changes.get(parameter.name)
        if wish is None:
            parameters.append(parameter)
            continue
        changed = _narrowed(info, parameter, wish.facts)
        if not wish.hidden:
            parameters.append(changed)
        elif changed.required:
            raise PluginError(f"{parameter.name} of {info.name} cannot be hidden without a default")
        else:
            hidden[parameter.name] = changed.default
    return info.model_copy(update={"parameters": parameters}), hidden


def _narrowed(info: ScanInfo, parameter: ParameterInfo, facts: Mapping[str, Any]) -> ParameterInfo:
    update = dict(facts)
    for names, tighter in ((_LOWER, max), (_UPPER, min)):
        for name in names:
            known = getattr(parameter, name)
            if name in update and known is not None:
                update[name] = tighter(update[name], known)
    if "choices" in update and parameter.choices is not None:
        new = [choice for choice in update["choices"] if choice not in parameter.choices]
        if new:
            raise PluginError(
                f"{parameter.name} of {info.name} cannot be {new[0]!r}; choices can only be taken away"
            )
    if "default" in update:
        update["required"] = False
    changed = parameter.model_copy(update=update)
    if "default" in update or not changed.required:
        problems = problems_of_parameter(info, changed, changed.default)
        if problems:
            raise PluginError(f"a default is not right: {problems[0]}")
    return changed


def _wanted(what: str) -> str:
    return f"to change the {what} of" if what.startswith("parameter ") else f"to run {what} of"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _described(name: str, wish: Change) -> str:
    if wish.hidden:
        return f"hides {name}"
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    parts = [f"{name} {signs[bound]} {value:g}" for bound, value in wish.facts.items() if bound in signs]
    if "default" in wish.facts:
        parts.insert(0, f"{name}={wish.facts['default']!r}")
    if "choices" in wish.facts:
        parts.append(f"{name} one of {wish.facts['choices']!r}")
    return ", ".join(parts) or f"describes {name}"
