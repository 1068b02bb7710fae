"""HTTP/1 requests that servers are known to frame differently, by a grammar and a fixed seed; and a strict reader of
them, which takes only what every reader must take alike."""

import random
import re

NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) (\S+) HTTP/1\.[01]")
LENGTH = re.compile(rb"0|[1-9][0-9]*")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?")

REQUEST_LINES = [
    b"GET %s HTTP/1.1", b"PUT %s HTTP/1.1", b"DELETE %s HTTP/1.1", b"OPTIONS %s HTTP/1.1", b"POST %s HTTP/1.0", b"GET %s HTTP/1.0",
    b"POST  %s HTTP/1.1", b"POST %s  HTTP/1.1", b"POST %s HTTP/1.1 ", b" POST %s HTTP/1.1", b"POST\t%s HTTP/1.1", b"post %s HTTP/1.1",
    b"POST %s HTTP/1.2", b"POST %s HTTP/2.0", b"POST %s HTTP/01.1", b"POST %s HTTP/1.10", b"POST %s http/1.1", b"POST %s", b"POST %s HTTP/",
    b"\r\nPOST %s HTTP/1.1", b"\nPOST %s HTTP/1.1", b"\r\n\r\nPOST %s HTTP/1.1", b"\x00POST %s HTTP/1.1", b"POST\x00 %s HTTP/1.1",
    b"POST https://HOST%s HTTP/1.1", b"POST http://HOST%s HTTP/1.1", b"POST HTTPS://HOST%s HTTP/1.1", b"POST https://u@HOST%s HTTP/1.1",
    b"POST https://evil.test%s HTTP/1.1", b"POST //HOST%s HTTP/1.1", b"POST https:%s HTTP/1.1", b"POST %s#x HTTP/1.1", b"POST %s\xff HTTP/1.1",
    b"POST %s\x00 HTTP/1.1", b"POST %s HTTP/1.1\rX: y", b"POST %s HTTP/1.1\nX: y", b"POST %s\n HTTP/1.1", b"POST %s HTTP/1.1\x0b", b"P(ST %s HTTP/1.1",
    b"POST %s?a=b HTTP/1.1", b"POST %s/../../admin HTTP/1.1", b"CONNECT HOST HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PRI * HTTP/2.0", b"TRACE %s HTTP/1.1",
    b"GET %s HTTP/1.1\r\nHost: HOST\r\n\r\nPOST %s HTTP/1.1", b"POST %s HTTP/1.1\r", b"POST %s HTTP/1.1\r\n",
]
LENGTH_NAMES = [
    b"content-length", b"CONTENT-LENGTH", b"Content-Length ", b" Content-Length", b"\tContent-Length", b"Content_Length", b"Content-Length\t", b"\x0bContent-Length",
    b"Content-Length\x00", b"Content\xadLength", b"X-Content-Length", b"X: y\nContent-Length", b"X: y\rContent-Length", b"Content-Length:", b"Content-Length\r",
]
LENGTH_VALUES = [
    b"0", b"+%d", b"-%d", b"0x%x", b"0%d", b"%d,%d", b"%d, %d", b"%d,0", b"0,%d", b"%d ", b"%d;", b"", b"18446744073709551617", b"9223372036854775808", b"%d\x0b",
    b"\xef\xbc\x95", b"%d\r\n 0", b"%d\n0", b"1e1", b"%d_0", b"%d.0", b" %d", b"  %d", b"\t%d", b"%d\t", b'"%d"', b"%d\x00", b"%d a", b"NaN", b"%d\r", b"00%d", b"\xa0%d",
]
CODING_NAMES = [
    b"transfer-encoding", b"TRANSFER-ENCODING", b"Transfer_Encoding", b"Transfer-Encoding ", b" Transfer-Encoding", b"Transfer-Encoding\t", b"Transfer Encoding",
    b"X: y\nTransfer-Encoding", b"X: y\rTransfer-Encoding", b"TE", b"Transfer.Encoding", b"\x00Transfer-Encoding", b"Transfer-Encoding\x00", b"Transfer-Encoding:", b"\xefTransfer-Encoding",
]
CODINGS = [
    b"Chunked", b"CHUNKED", b",chunked", b"chunked,", b"xchunked", b"chunkedx", b"chunked x", b"chunked;x=1", b"chunked, chunked", b"identity", b"identity, chunked",
    b"chunked, identity", b"gzip, chunked", b"chunked, gzip", b"gzip", b'"chunked"', b"'chunked'", b"chunk", b"chunked\x0b", b"\x0bchunked", b"chunked\x00", b"chunked\x7f",
    b"\x00chunked", b"x, chunked", b"", b"none", b"trailers", b"\tchunked", b"chunked\t", b"  chunked", b"chunked ", b"\r\n chunked", b"\n chunked", b"chun\r\n ked", b"chunked\r",
    b"c\xc2\xadhunked", b"\xa0chunked", b"\x85chunked", b"deflate", b"chunked\r\nTransfer-Encoding: identity", b"identity\r\nTransfer-Encoding: chunked",
    b"chunked\r\nTransfer-Encoding: chunked",
]
SEPARATORS = [b":", b":\t", b" : ", b":  ", b":\r\n ", b":\n", b":\x0b", b": \t", b"\t: ", b"=", b":\x00", b" "]
LINE_ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\n", b"\x0b\r\n", b"\x00\r\n", b"\x85", b"\r\n "]
HOSTS = [
    [], [b"Host: HOST", b"Host: HOST"], [b"Host: HOST", b"Host: evil.test"], [b"Host: evil.test", b"Host: HOST"], [b"Host:"], [b"Host: "], [b"Host: evil.test"],
    [b"Host: HOST/public"], [b"Host: u@HOST"], [b"Host: HOST, evil.test"], [b"Host: HOST evil.test"], [b"host: HOST"], [b"HOST: HOST"], [b"Host : HOST"], [b" Host: HOST"],
    [b"Host:HOST"], [b"Host:  HOST"], [b"Host: HOST "], [b"Host:\tHOST"], [b"Host: HOST\x00"], [b"Host: HOST#"], [b"Host: HOST?"], [b"Host: HOST\\@evil.test"], [b"Host: https://HOST"],
    [b"Host: HOST", b"X-Forwarded-Host: evil.test"], [b"Host: HOST", b"Host_: evil.test"], [b"Host:\r\n HOST"], [b"X: y\nHost: HOST"], [b"Host: HOST:80"], [b"Host: [::1]"],
]
FIELDS = [
    b"X\x00: 1", b"X Y: 1", b": 1", b"X", b"X\xe9: 1", b"(X): 1", b"X: 1\r\n 2", b"X: 1\r\n\t2", b"X: 1\r\n \r\nGET /admin/smuggled HTTP/1.1", b"X: \xe9", b"X: a\x00b", b"X: a\rb",
    b"X: a\nb", b"X: a\x7fb", b"X:", b"X: ", b"Expect: 100-continue", b"Expect: 200-ok", b"Connection: close", b"Connection: keep-alive", b"Connection: Content-Length",
    b"Connection: Transfer-Encoding", b"Connection: Transfer-Encoding, close", b"Connection: Host", b"Connection: upgrade\r\nUpgrade: h2c", b"Connection: upgrade\r\nUpgrade: foo",
    b"Connection: Upgrade\r\nUpgrade: websocket", b"Trailer: X", b"TE: trailers", b"TE: chunked", b"Content-Encoding: gzip", b"X-HTTP-Method-Override: DELETE", b"Proxy-Connection: keep-alive",
    b"Keep-Alive: timeout=5", b"X-Original-URL: /admin/smuggled", b"X-Rewrite-URL: /admin/smuggled", b"Content-Type: multipart/byteranges; boundary=x", b"Range: bytes=0-1",
    b"X: " + b"a" * 7000, b"Upgrade-Insecure-Requests: 1", b"Max-Forwards: 0", b"Via: 1.0 x", b"Cookie: a=b\r\nCookie: c=d", b"If-Modified-Since: x", b"\x1fX: 1", b"X;: 1", b'"X": 1',
]
SIZES = [
    b"0x%x", b"+%x", b"-%x", b"%x ", b" %x", b"0%x", b"%x;ext", b"%x;a=b", b"%x;a=\"\r\n\"", b"%x;a\n", b"%x;a\r", b"%x;\x00", b"%x\r", b"%x\t", b"%x_0", b"000000000000000%x", b"0000000000000000%x",
    b"ffffffffffffffff%x", b"1000000000000000%x", b"%xg", b"", b"%x;" + b"a" * 3000, b"%x,%x", b"%x;a=b;c", b"%x ;a", b"\x00%x", b"%x\x0b", b"%x\xa0", b"\xef\xbc\x95", b"%x.0", b"%X",
]
SIZE_ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n\r\n", b""]
DATA_ENDS = [b"", b"\n", b"\r", b"X\r\n", b"\r\n\r\n", b"\r\r\n", b"\r\nX", b"\n\n"]
LASTS = [
    b"0\n\n", b"00\r\n\r\n", b"000\r\n\r\n", b"0;x\r\n\r\n", b"-0\r\n\r\n", b"0x0\r\n\r\n", b"0\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nX: y\n\r\n", b"0\r\n X: y\r\n\r\n",
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"\r\n0\r\n\r\n", b"0 \r\n\r\n", b" 0\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\nX: y\r\n z\r\n\r\n", b"0\r\nHost: evil.test\r\n\r\n", b"0\r\n\n", b"0\r\r\n\r\n", b"0\n\r\n",
    b"0\r\n\r", b"", b"0\r\n: x\r\n\r\n", b"0\r\nX-User: root\r\n\r\n", b"0\r\nX: a\rb\r\n\r\n", b"0\r\nX: \x00\r\n\r\n",
]
ODDITIES = ["line", "length name", "length value", "length", "coding name", "coding", "both", "separator", "line end", "host", "field", "field", "size", "size end", "data end", "last", "short", "long", "none"]


def number(form, value):
    """`form` with `value` wherever it wants a number."""
    return form % ((value,) * len(re.findall(rb"%[dxX]", form))) if b"%" in form else form


def payload(rng, at, host, oddities=None):
    """One odd request and an honest one, the canary, behind it."""
    has = set(oddities if oddities is not None else rng.sample(ODDITIES, rng.choice((1, 1, 1, 2, 2, 3))))
    pick = lambda name, odd, usual: rng.choice(odd) if name in has else usual
    path = b"/public/m/%d" % at
    smuggled = b"GET /admin/smuggled/%d HTTP/1.1\r\nHost: HOST\r\n\r\n" % at
    content = rng.choice((b"hello", b"hello" + smuggled, smuggled, b"0\r\n\r\n" + smuggled, b""))
    is_chunked = bool(has & {"coding name", "coding", "both", "size", "size end", "data end", "last"}) or rng.random() < 0.2
    body = content
    if is_chunked:
        first = number(pick("size", SIZES, b"%x"), len(content)) + pick("size end", SIZE_ENDS, b"\r\n") + content + pick("data end", DATA_ENDS, b"\r\n")
        body = (first if content else b"") + pick("last", LASTS, b"0\r\n\r\n")
    length = len(body) + (rng.choice((-1, -3)) if "short" in has else rng.choice((1, 30, 100)) if "long" in has else 0)
    separator = pick("separator", SEPARATORS, b": ")
    fields = []
    if not is_chunked or "both" in has:
        fields.append(pick("length name", LENGTH_NAMES, b"Content-Length") + separator + number(pick("length value", LENGTH_VALUES, b"%d"), max(length, 0)))
        if "length" in has:
            fields.append(b"Content-Length: " + rng.choice((b"0", b"%d" % max(length, 0), b"%d" % (length + 5))))
    if is_chunked:
        fields.append(pick("coding name", CODING_NAMES, b"Transfer-Encoding") + separator + pick("coding", CODINGS, b"chunked"))
    if "field" in has:
        fields.append(rng.choice(FIELDS))
    fields += pick("host", HOSTS, [b"Host: HOST"])
    rng.shuffle(fields)
    line = pick("line", REQUEST_LINES, b"POST %s HTTP/1.1")
    head = [line.replace(b"%s", path), *fields, b""]
    odd_end = rng.randrange(len(head)) if "line end" in has else -1
    text = b"".join(part + (rng.choice(LINE_ENDS) if place == odd_end else b"\r\n") for place, part in enumerate(head))
    canary = b"GET /public/c/%d HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n" % at
    return (text + body + canary).replace(b"HOST", host)


def payloads(count, host, seed):
    rng = random.Random(seed)
    found = {}
    for at in range(count):
        # Each kind of oddity alone at first.
        alone = [ODDITIES[at % len(ODDITIES)]] if at < count // 2 else None
        found[payload(rng, at, host, alone)] = at
    return list(found)


def read_strictly(data):
    """The requests (method, target, body) that every reader must find in `data`; nothing behind the first doubt."""
    while True:
        data = data[2:] if data.startswith(b"\r\n") else data
        head, end, rest = data.partition(b"\r\n\r\n")
        line, *fields = head.split(b"\r\n")
        match = LINE.fullmatch(line)
        if not end or not match or re.search(rb"[\x00\r\n]", head.replace(b"\r\n", b"")):
            return
        lengths, codings, closes = [], [], False
        for field in fields:
            name, colon, value = field.partition(b":")
            if not colon or not NAME.fullmatch(name):
                return
            name, value = name.lower(), value.strip(b" \t")
            lengths += [value] if name == b"content-length" else []
            codings += [value.lower()] if name == b"transfer-encoding" else []
            closes |= name == b"connection" and b"close" in value.lower()
        if len(lengths) + len(codings) > 1:
            return
        if codings:
            if codings != [b"chunked"]:
                return
            body, rest = dechunk(rest)
            if body is None:
                return
        else:
            length = lengths[0] if lengths else b"0"
            if not LENGTH.fullmatch(length) or int(length) > len(rest):
                return
            body, rest = rest[: int(length)], rest[int(length) :]
        yield match[1], re.sub(rb"^https?://[^/]*", b"", match[2], flags=re.I), body
        if closes:
            return
        data = rest


def dechunk(data):
    """A chunked body and what is behind it; `None` if it is not whole and well formed."""
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        match = CHUNK.fullmatch(line)
        if not end or not match:
            return None, b""
        size = int(match[1], 16)
        if size == 0:
            break
        if data[size : size + 2] != b"\r\n":
            return None, b""
        body, data = body + data[:size], data[size + 2 :]
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end or re.search(rb"[\x00\r\n]", line):
            return None, b""
        if not line:
            return body, data
        if not NAME.fullmatch(line.partition(b":")[0]) or b":" not in line:
            return None, b""
