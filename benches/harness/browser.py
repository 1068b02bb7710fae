"""A browser as far as a login needs one: redirects, cookies, and the forms of two development providers, npm
oidc-provider and `portcullis dev-idp`.

Certificates are not checked: everything is on loopback and made by this run. Cookies are kept for each origin
(a real browser would share those of localhost between ports, which nothing here needs).
"""

import html
import http.client
import re
import ssl
from urllib.parse import urlencode, urljoin, urlsplit

from .processes import Failed

MOST_STEPS = 20
FORM = re.compile(r'<form[^>]*\saction="([^"]+)"')
HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')


class Browser:
    """Cookies, and one connection for each origin."""

    def __init__(self):
        self.cookies = {}
        self.connections = {}
        self.context = ssl.create_default_context()
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE

    def request(self, method, url, body=None):
        """One request without following anything: status, headers, text."""
        parts = urlsplit(url)
        origin = (parts.scheme, parts.netloc)
        jar = self.cookies.setdefault(origin, {})
        headers = {"Host": parts.netloc, "Accept": "text/html", "User-Agent": "bench"}
        if jar:
            headers["Cookie"] = self.cookie_header(url)
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        target = parts.path or "/"
        if parts.query:
            target += "?" + parts.query
        for attempt in (1, 2):
            connection = self.connections.pop(origin, None) or self._connect(parts)
            try:
                connection.request(method, target, body, headers)
                response = connection.getresponse()
                text = response.read().decode(errors="replace")
                break
            except (http.client.HTTPException, OSError):
                # The other side may have ended a connection that was kept.
                connection.close()
                if attempt == 2:
                    raise
        self.connections[origin] = connection
        for field in response.headers.get_all("Set-Cookie") or []:
            self._keep(jar, field)
        return response.status, response.headers, text

    def _connect(self, parts):
        if parts.scheme == "https":
            return http.client.HTTPSConnection("127.0.0.1", parts.port, timeout=30, context=self.context)
        return http.client.HTTPConnection("127.0.0.1", parts.port, timeout=30)

    @staticmethod
    def _keep(jar, field):
        pair, *attributes = field.split(";")
        name, _, value = pair.strip().partition("=")
        gone = any(
            one.strip().lower() == "max-age=0" or one.strip().lower().startswith("expires=thu, 01 jan 1970")
            for one in attributes
        )
        if gone:
            jar.pop(name, None)
        else:
            jar[name] = value

    def cookie_header(self, url):
        """What this browser would send to `url` as its Cookie header."""
        parts = urlsplit(url)
        jar = self.cookies.get((parts.scheme, parts.netloc), {})
        return "; ".join(f"{name}={value}" for name, value in jar.items())

    def forget(self, url):
        """Drops the cookies of an origin."""
        parts = urlsplit(url)
        self.cookies.pop((parts.scheme, parts.netloc), None)

    def log_in(self, url, user):
        """Opens `url` and goes wherever it leads, filling in the provider's forms, until it is answered."""
        method, body, here = "GET", None, url
        for _ in range(MOST_STEPS):
            status, headers, text = self.request(method, here, body)
            method, body = "GET", None
            if status in (301, 302, 303, 307, 308):
                here = urljoin(here, headers["Location"])
            elif status == 200 and (form := FORM.search(text)):
                fields = {name: html.unescape(value) for name, value in HIDDEN.findall(text)}
                # oidc-provider wants a name and any password; dev-idp takes a click on a name.
                fields |= {"login": user, "password": "any"} if fields.get("prompt") == "login" else {}
                fields |= {"user": user} if "request" in fields else {}
                method, body, here = "POST", urlencode(fields), urljoin(here, form[1])
            elif status == 200 and here.split("?")[0] == url.split("?")[0]:
                return
            else:
                raise Failed(f"the login at {url} ended at {here} with {status}: {text[:500]}")
        raise Failed(f"the login at {url} does not come to an end")
