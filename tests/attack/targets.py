"""Request targets that servers are known to read differently, by a grammar and a fixed seed."""

import random

NAMES = [b"public", b"admin", b"secret", b"x", b"a.b", b"index.html", b"PUBLIC", b"Admin", b"SECRET", b"~root", b"...", b"..a", b"%20"]
UP = [
    b"..", b".", b"%2e%2e", b".%2E", b"%2e.", b"%2E", b"..;", b"..;a=b", b".;", b"%2e%2e%3b", b"..%3Bx", b"%252e%252e",
    b"%25%32%65.", b"..%00", b"..%20", b"..%09", b"%20..", b"..%0d", b"%c0%ae%c0%ae", b"%e0%80%ae.", b"..%ff", b"..%c0%af..",
    b"%ef%bc%8e%ef%bc%8e", b"%u002e%u002e", b"%e2%80%a6", b"....", b". .", b"..%85", b"..%c2%85", b"..\t", b"..\x00",
    b"..\xc0\xaf", b".\r.", b"%32%65%32%65", b"..:", b"..%e2%80%8b", b"%2%65%2%65", b"%%32%65", b"..%23", b"..%3f",
]
ODD = [
    b"", b";", b";x=1", b"%3b", b"*", b"%2a", b"@", b"user@admin", b":80", b"http:", b"https:%2f%2fh", b"+", b"[::1]", b"{x}", b"|", b"^",
    b'"', b"<", b"`", b"%", b"%a", b"%gg", b"%25", b"%2525", b"%0a", b"%00", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xef\xbc\x8f", b"c:",
    b"aux", b"web.config::$DATA", b"admin.", b"admin%20", b"secret;x", b"secret%3bx", b"secret%00", b"secret.", b"secret%20", b"secret%2f",
    b"public;x", b"..secret", b"secret..", b"sec%72et", b"%73ecret", b"s%2565cret", b"secret%23", b"secret%3f", b"secret&x", b"secret,x",
    b"%C5%BFecret", b"%ef%bd%93ecret",
]
PLAIN_SEPARATOR = b"/"
SEPARATORS = [
    b"//", b"///", b"\\", b"%2f", b"%2F", b"%5c", b"%5C", b"%252f", b"%255c", b"/./", b"/../", b"/;/", b"/;a=b/", b";/", b"/%2e/", b"%c0%af",
    b"%ef%bc%8f", b"%e2%88%95", b"/%20/", b"/.%00/", b"/\\", b"\\/", b"%2f/", b"/%2f", b"%u002f", b"%%32%66", b":/", b"/@/", b"/.;/", b"/..;/",
    b"%0d%0a", b"/%09/", b"%3f/", b"%23/", b"?/", b"#/", b"%2f..%2f", b"%5c..%5c", b"/%2e%2e/", b"/.%2e/", b"%2f%2f", b"%c1%9c", b"%25%32%66",
]
PREFIXES = [
    b"", b"//", b"///", b"/\\", b"\\", b"\\\\", b"http://h", b"https://h/", b"https://h:443/", b"https://u@h/", b"https:/", b"https:", b"*", b"*/",
    b"/http://h/", b"//h/", b"/;@h/", b"/./", b"/../", b"/%2f", b"/%2e/", b"/;x/", b"/*/", b" /", b"\t/", b"/ ", b"?/", b"#/", b"%2f", b"/%20/",
]
SUFFIXES = [
    b"/", b"//", b"?", b"?x=/public", b"?/../admin", b"?..%2fadmin", b"#", b"#/public", b"%23/../admin", b"%3f/../admin", b";", b";x", b"%3b", b".",
    b"%20", b"%00", b"/.", b"/..", b"/%2e%2e", b"&", b"?a#b", b"?\x00", b"?a b", b"?a=%2e%2e%2f", b"%", b"\\", b"%5c", b"/;", b"/.;", b"?%", b"??",
    b"?;/../../admin", b";/../admin", b"%3b/../admin", b"%26", b"::$DATA", b".html", b"?\xff", b"\xff", b"%ff", b" ", b"%2f",
]
DEFAULT_SEED = 20240607


def escaped(rng, text, depth):
    """Some characters of `text` as escapes, which are escaped again, `depth` times, in either case."""
    for _ in range(depth):
        share = rng.random()
        text = b"".join(
            (b"%%%02X" if rng.random() < 0.5 else b"%%%02x") % byte if rng.random() < share else bytes([byte]) for byte in text
        )
    return text


def segment(rng, clean):
    roll = rng.random()
    text = rng.choice(NAMES if roll < 0.62 or clean else UP if roll < 0.82 else ODD)
    if rng.random() < 0.12:
        text += rng.choice([b";x=1", b";", b"%3bv=2", b";a/b", b".", b"%20", b"..", b";..", b"%3b..", b"%2e", b"~", b"%2525"])
    if rng.random() < 0.2:
        text = escaped(rng, text, rng.choice((1, 1, 1, 2, 3)))
    return text


def target(rng):
    """One target. A good half begins as the public part does, for only those are of use to an attacker."""
    clean = rng.random() < 0.35
    inside = rng.random() < 0.75
    text = b"/" if inside or rng.random() < 0.5 else rng.choice(PREFIXES)
    if inside:
        text += b"public" if rng.random() < 0.8 else escaped(rng, b"public", 1)
    else:
        text += segment(rng, clean)
    odd_separators = 0.0 if clean else rng.choice((0.0, 0.0, 0.15, 0.6))
    for _ in range(rng.randint(1, 5)):
        text += rng.choice(SEPARATORS) if rng.random() < odd_separators else PLAIN_SEPARATOR
        text += segment(rng, clean)
    if rng.random() < 0.4:
        text += rng.choice(SUFFIXES)
    if rng.random() < 0.02:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + bytes([rng.randrange(256)]) + text[at:]
    return text


def targets(count, seed=DEFAULT_SEED):
    """`count` different targets, always the same for one seed."""
    rng = random.Random(seed)
    found = {}
    while len(found) < count:
        found[target(rng)] = None
    return list(found)
