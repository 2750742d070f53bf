"""The page that `dvc plots show` and `dvc plots diff` fill in, with Vega inside: DVC's own needs a network."""

import sys
from pathlib import Path

from catdog.base import files
from catdog.base.errors import run

TEMPLATE = Path(__file__).with_name("plots_page.html")  # DVC fills in the braces
_VEGA_LITE = "5.20"  # DVC's templates are written in version 5


def main() -> None:
    """Write the page to the path that is given on the command line."""
    import vl_convert

    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)
    page = TEMPLATE.read_text(encoding="utf-8").replace("VEGA", vega.replace("</script", r"<\/script"))
    files.write_text(Path(sys.argv[1]), page)


if __name__ == "__main__":
    run(main)
