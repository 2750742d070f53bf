"""Numbers as a person reads them."""


def percent(fraction: float) -> str:
    """97.3 %; two decimals where one would make 100 % of what is less."""
    return f"{100 * fraction:.{2 if 0.9995 <= fraction < 1 else 1}f} %"


def duration(seconds: float) -> str:
    """0.4 s, 42 s, 3 min 5 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def milliseconds(value: float) -> str:
    """7.2 ms, 67 ms."""
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def megabytes(size: float) -> str:
    """Bytes as 13.7 MB, 350 MB, 1.3 GB."""
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size < 1e8 else f"{size / 1e6:.0f} MB"
