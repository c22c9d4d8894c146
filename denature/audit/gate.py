"""A gate for continuous integration: whether a defense keeps the worst thief below a share."""

from xml.etree import ElementTree

from denature.audit.reading import spoiled
from denature.audit.result import AuditResult, Worst
from denature.core.text import printable
from denature.extract.config import Threat

JUNIT = "junit.xml"


def most_recovered(result: AuditResult) -> dict[tuple[str, Threat], Worst | None]:
    """The largest recovered advantage over all budgets; None where it is not measurable."""
    found: dict[tuple[str, Threat], Worst | None] = {}
    for worst in result.worst:
        key = (worst.defense, worst.threat)
        best = found.setdefault(key, None)
        if worst.recovered is None:
            continue
        if best is None or best.recovered is None or worst.recovered.value > best.recovered.value:
            found[key] = worst
    return found


def best_defense(result: AuditResult) -> tuple[str, float] | None:
    """The defense that leaves least to its worst thief under any threat, and what it leaves.

    A defense that ruins the answers for honest users is none; see `spoiled`. None where nothing is
    measurable.
    """
    left: dict[str, float] = {}
    ruined = {price.defense for price in spoiled(result)}
    for (defense, _), worst in most_recovered(result).items():
        if defense in ruined:
            continue
        if worst is not None and worst.recovered is not None:
            left[defense] = max(left.get(defense, worst.recovered.value), worst.recovered.value)
    return min(left.items(), key=lambda entry: (entry[1], entry[0]), default=None)


def junit(result: AuditResult, share: float) -> str:
    """A JUnit file with one test case for each defense and threat.

    Where the gate holds no case fails: of defenses that leave more than the share the message says
    which defense counts.

    Args:
        result: of the audit.
        share: recovered advantage that fails a case when it is exceeded.
    """
    best = best_defense(result)
    holds = None if best is None or best[1] > share else best[0]
    suite = ElementTree.Element("testsuite", name="denature audit")
    failures = skipped = 0
    ruined = {price.defense: price for price in spoiled(result)}
    for (defense, threat), worst in most_recovered(result).items():
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"audit.threat-{threat}", name=defense
        )
        if worst is None or worst.recovered is None:
            skipped += 1
            ElementTree.SubElement(case, "skipped", message="not measurable here")
        elif defense in ruined:
            skipped += 1
            price = ruined[defense]
            message = (
                f"this defense keeps the shown class of only {100 * price.top1_kept.value:.0f} % "
                f"of the images, and is right on {100 * price.accuracy.value:.0f} %"
            )
            ElementTree.SubElement(case, "skipped", message=message)
        elif worst.recovered.value > share:
            message = (
                f"{worst.thief} recovers {100 * worst.recovered.value:.1f} % of the advantage with "
                f"{worst.budget:,} queries; {100 * share:g} % are allowed"
            )
            if holds is None:
                failures += 1
                ElementTree.SubElement(case, "failure", message=message)
            else:
                skipped += 1
                message += f", and the gate holds behind {holds}"
                ElementTree.SubElement(case, "skipped", message=message)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    suite.set("skipped", str(skipped))
    suite.set("time", f"{result.seconds:.1f}")
    text = ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)
    return printable(text, keep="\n") + "\n"  # XML has no place for most controls
