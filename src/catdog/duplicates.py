"""The same photograph more than once."""

from collections import defaultdict

from catdog.inspection import Finding


def settle(findings: list[Finding]) -> None:
    """Give every photograph kept its group, and every copy a reason: of identical ones the first by source counts.

    A photograph filed under both classes is right at most once and nobody knows where, so all its copies are refused.
    """
    copies = defaultdict(list)
    for finding in findings:
        if not finding.reason:
            copies[finding.id].append(finding)
    for same in copies.values():
        if len({finding.label for finding in same}) > 1:
            for finding in same:
                others = ", ".join(other.source for other in same if other is not finding)
                finding.reason = f"conflicting labels: same bytes as {others}"
        else:
            for finding in same[1:]:
                finding.reason = f"duplicate: same bytes as {same[0].source}"
        for finding in same:
            finding.group = "" if finding.reason else finding.id
