"""The page that `dvc plots show` and `dvc plots diff` fill in, with Vega inside: DVC's own needs a network."""

import sys
from pathlib import Path

from catdog.base import files
from catdog.base.errors import run

# DVC fills in the braces.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>catdog: DVC plots</title>
<link rel="icon" href="data:,">
<style>
body { margin: 1.5rem; font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
img { max-width: 100%; height: auto; }
</style>
<script>VEGA</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""
_VEGA_LITE = "5.20"  # DVC's templates are written in version 5


def main() -> None:
    """Write the page to the path that is given on the command line."""
    import vl_convert

    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE).replace(
        "</script", r"<\/script"
    )
    files.write_text(Path(sys.argv[1]), _PAGE.replace("VEGA", vega))


if __name__ == "__main__":
    run(main)
