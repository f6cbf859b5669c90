"""Tables of the documentation's pages."""


def rows_of(page: str, title: str) -> list[list[str]]:
    """Return the cells of the first table below a title, without its head."""
    lines = page.partition(f"## {title}\n")[2].partition("\n## ")[0].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]
