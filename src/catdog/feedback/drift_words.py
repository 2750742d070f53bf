"""What was found of new photographs, in words: one line for all of it, and one for each figure that needs some."""

from catdog.answers.classifier import NEITHER, UNSURE
from catdog.feedback.drift import APART, FAMILIARITY, FEATURES, FEWEST, ORDER, SHARE, SURENESS, Difference, Findings
from catdog.pictures.wording import percent

_MOST = 3  # differences in the verdict, the weightiest first
# What less and more of it makes of photographs.
_COMPARED = {
    "light": ("darker", "lighter"),
    "contrast": ("lower in contrast", "higher in contrast"),
    "colour": ("less colourful", "more colourful"),
    "sharpness": ("less sharp", "sharper"),
    "short side": ("smaller", "larger"),
    "aspect": ("narrower", "wider"),
    SURENESS: ("the model is less sure of them", "the model is surer of them"),
    FAMILIARITY: ("less familiar to the model", "more familiar to the model"),
}
_BY = {  # how a median is written, and its unit
    "light": ("{:.0f}", " of 255"),
    "contrast": ("{:.0f}", ""),
    "colour": ("{:.0f}", " of 255"),
    "sharpness": ("{:.1f}", ""),
    "short side": ("{:.0f}", " px"),
    "aspect": ("{:.2f}", ""),
}
MEANINGS = {
    "light": "mean grey, 0 to 255",
    "contrast": "standard deviation of grey",
    "colour": "mean gap between red, green and blue, 0 to 255; grey has none",
    "sharpness": "variance of the Laplacian at 128 px, as a logarithm",
    "short side": "of the file, pixels",
    "aspect": "width : height of the file",
    SURENESS: "probability of the likelier class",
    FAMILIARITY: "share of validation photographs that look no more familiar to the model",
    UNSURE: "neither class is likely enough to answer",
    NEITHER: "unlike the photographs that the model was made for",
    FEATURES: "how well a classifier tells new from old by them; 0.50 is guessing",
}


def verdict(findings: Findings) -> str:
    """Whether the photographs differ, how, and what accuracy to expect, in one line."""
    these = f"These {findings.photographs:,} photographs"
    if findings.photographs < FEWEST:
        few = "This photograph is" if findings.photographs == 1 else f"{these} are"
        return f"{few} too few to say whether they differ: it takes {FEWEST}."
    if findings.drift is None:
        return f"The model keeps {findings.known} validation photographs, too few to compare with: it takes {FEWEST}."
    if not findings.drift:
        return f"{these} look like those that the model was tuned on{_expect(findings)}."
    counted = _worth_a_word([each for each in findings.differences if each.counts])
    told = [_told(each) for each in counted[:_MOST]]
    others = len(counted) - _MOST
    more = [f"and {others} more {'way' if others == 1 else 'ways'}"] if others > 0 else []
    return f"{these} differ: {', '.join([*told, *more])}{_expect(findings)}."


def middle(difference: Difference, value: float, *, unit: bool = True) -> str:
    """The old or the new value of a difference."""
    if difference.kind == APART:
        return f"{value:.2f}"
    if difference.name not in _BY:
        return percent(value)
    form, of = _BY[difference.name]
    return form.format(value) + of * unit


def effect(difference: Difference) -> str:
    """The effect of a difference and its interval, such as −0.62 [−0.70, −0.53]."""
    kinds = {ORDER: (1, "{:+.2f}", ""), SHARE: (100, "{:+.1f}", " points"), APART: (1, "{:.2f}", "")}
    times, form, unit = kinds[difference.kind]
    size, low, high = (form.format(times * number).replace("-", "−") for number in difference.effect[:3])
    return f"{size} [{low}, {high}]{unit}"


def apart(difference: Difference) -> str:
    """What the area of a classifier of old against new means."""
    area, low, high = (f"{number:.2f}" for number in difference.effect[:3])
    if difference.counts:
        said = "so the model sees them otherwise"
    else:
        said = "which may be chance" if difference.weight >= 1 else "so to the model they look much alike"
    return (
        "A classifier that learnt to tell new from old on half of the photographs ranks the others with an area under "
        f"the ROC curve of {area} [{low}, {high}]; 0.50 is guessing, 1.00 never fails: {said}."
    )


def accuracy(findings: Findings) -> str:
    """What accuracy to expect, of how many, and as far as what holds."""
    told = []
    if findings.accuracy and findings.usual is not None:
        number, low, high = (percent(share).removesuffix(" %") for share in findings.accuracy)
        familiar = f"{findings.photographs - findings.neither:,} photographs that are familiar enough"
        told.append(
            f"Of the {familiar}, expect {number} % [{low}, {high}] to be of the class that the model finds likelier; "
            f"{percent(findings.usual)} of the validation photographs were. This is what the model's probabilities "
            "say. It holds for photographs of the two classes alone, and as far as they are as true of new photographs "
            "as of those: where photographs differ much, models are often surer than they should be."
        )
    else:
        told.append("What accuracy to expect can't be said of so few photographs that are familiar enough.")
    if findings.neither:
        told.append(
            f"{findings.neither:,} are unfamiliar ({NEITHER}): how sure the model is of them says nothing, so they are "
            "left out."
        )
    return " ".join(told)


def _worth_a_word(counted: list[Difference]) -> list[Difference]:
    """The differences that count, the weightiest first. Where doubt is among them, rarer classes are no news."""
    doubtful = {NEITHER, UNSURE} & {each.name for each in counted}
    told = [each for each in counted if each.kind != SHARE or not doubtful or each.name in doubtful]
    return sorted(told, key=lambda each: -each.weight)


def _told(difference: Difference) -> str:
    if difference.kind == APART:
        return f"the model sees them otherwise (told apart with an area of {difference.effect.size:.2f})"
    old, new = middle(difference, difference.old), middle(difference, difference.new, unit=False)
    if difference.kind == SHARE:
        doubts = {NEITHER: f"the model finds {new} of them unfamiliar", UNSURE: f"the model is unsure of {new}"}
        return f"{doubts.get(difference.name, f'{new} are {difference.name}')} instead of {old}"
    return f"{_COMPARED[difference.name][difference.effect.size > 0]} ({new} instead of {old})"


def _expect(findings: Findings) -> str:
    if findings.accuracy is None or findings.usual is None:
        return ""
    number, low, high = (percent(share).removesuffix(" %") for share in findings.accuracy)
    usual = f" instead of {percent(findings.usual)}" if findings.drift else ""
    strange = any(each.counts and each.name == NEITHER for each in findings.differences)
    of = f" of the other {findings.photographs - findings.neither:,}" if strange else ""
    return f"; expect {number} % [{low}, {high}]{of} right{usual}"
