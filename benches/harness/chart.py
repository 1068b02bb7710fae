"""One chart as SVG: what an authorised request costs of nginx's, by subject. No library draws it."""

from html import escape

WIDTH = 860
BAR = 18
GAP = 10
LEFT = 250
RIGHT = 110
TOP = 74
COLOURS = {"ours": "#2f6f4f", "other": "#9aa5ad", "reference": "#1f2933"}
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1f2933}.title{font-size:16px;font-weight:600}"
    ".note{font-size:11px;fill:#52606d}svg{background:#fff}"
)


def draw(title, note, bars):
    """`bars`: (label, median, low, high, is it ours), from top to bottom; 1 is nginx."""
    top = max(high for _, _, _, high, _ in bars)
    span = WIDTH - LEFT - RIGHT
    x = lambda value: LEFT + span * value / top
    height = TOP + len(bars) * (BAR + GAP) + 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="16" y="28">{escape(title)}</text>',
        f'<text class="note" x="16" y="48">{escape(note)}</text>',
    ]
    for number, (label, median, low, high, ours) in enumerate(bars):
        y = TOP + number * (BAR + GAP)
        middle = y + BAR / 2
        colour = COLOURS["ours" if ours else "other"]
        parts += [
            f'<text x="{LEFT - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{x(median) - LEFT:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{middle}" y2="{middle}" stroke="#1f2933"/>',
            f'<text x="{x(high) + 8:.1f}" y="{middle + 4:.1f}">{median:.2f} x</text>',
        ]
    bottom = TOP + len(bars) * (BAR + GAP)
    parts += [
        f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{TOP - 8}" y2="{bottom}" stroke="{COLOURS["reference"]}" '
        'stroke-dasharray="4 3"/>',
        f'<text class="note" x="{x(1):.1f}" y="{bottom + 14}" text-anchor="middle">nginx = 1</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
