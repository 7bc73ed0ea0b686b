"""Secrets removed from texts before anything is journaled: by exact name, by shape, and from URIs.

A text is a secret under an exact name, wherever that stands: as the key of a mapping, an option of a command line, or
inside a text as ``name=value``, ``"name": "value"``, ``--name value`` or a line ``name: value``. Numbers and metric
names are never touched: ``max_tokens`` stays.
"""

from __future__ import annotations

import re
from collections import Counter

# Without underscores and in small letters: ``api_key``, ``api-key``, ``apiKey`` and ``APIKEY`` are one name.
_SECRET_NAMES = frozenset(
    """password passwd passphrase passcode pwd pgpassword mysqlpwd dbpassword databasepassword rootpassword
    adminpassword userpassword mongopassword mongodbpassword redispassword redisclipassword postgrespassword
    mysqlpassword smtppassword emailpassword proxypassword sshpassword registrypassword dockerpassword
    token accesstoken authtoken refreshtoken idtoken apitoken sessiontoken bearertoken oauthtoken bottoken
    personalaccesstoken sastoken xauthtoken csrftoken jwttoken jwt
    secret clientsecret secretkey secretaccesskey appsecret apisecret consumersecret jwtsecret webhooksecret
    signingsecret sharedsecret awssecretaccesskey awssessiontoken xamzsecuritytoken xamzsignature
    xamzcredential apikey xapikey accesskey accountkey storageaccountkey sharedaccesskey signingkey encryptionkey
    masterkey privatekey sshkey sshprivatekey authorization proxyauthorization auth credential credentials cookie
    setcookie sessionkey githubtoken ghtoken githubpat gitlabtoken hftoken huggingfacetoken
    huggingfacehubtoken slacktoken slackbottoken discordtoken telegramtoken npmtoken pypitoken npmauthtoken
    openaiapikey azureopenaiapikey anthropicapikey googleapikey geminiapikey mistralapikey cohereapikey
    replicateapitoken togetherapikey groqapikey pineconeapikey langchainapikey langsmithapikey wandbapikey
    neptuneapitoken cometapikey clearmlapisecretkey kagglekey mlflowtrackingpassword mlflowtrackingtoken
    databrickstoken azurestoragekey azureclientsecret azurestorageconnectionstring""".split()
)

# Each shape is long and starts in its own way, so that ordinary words are not taken for it.
_TOKEN_SHAPES = re.compile(
    # The first letters of them all, so that other words are let go at once.
    r"""\b(?=[srhgxAynpdebB])(?:
        (?P<openai>[sr]k[\-_][A-Za-z0-9_\-]{20,})                 |   # Anthropic, Stripe and other relatives too
        (?P<huggingface>hf_[A-Za-z0-9]{20,})                      |
        (?P<github>gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})   |
        (?P<gitlab>gl[a-z]{2,5}-[A-Za-z0-9_\-]{18,})              |
        (?P<slack>x(?:ox[a-z]|app)-[A-Za-z0-9\-]{10,}|hooks\.slack\.com/services/[A-Za-z0-9/]{20,})   |
        (?P<amazon>A(?:KI|SI)A[0-9A-Z]{16})                       |   # an access key's id
        (?P<google>AIza[0-9A-Za-z_\-]{35}|ya29\.[0-9A-Za-z_\-]{20,})   |
        (?P<package_index>npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_\-]{30,})   |
        (?P<databricks>dapi[0-9a-f]{32})                          |
        (?P<groq>gsk_[A-Za-z0-9]{30,})                            |
        (?P<azure>sig=[A-Za-z0-9%+/]{40,}=*)                      |   # the signature of a shared address
        (?P<jwt>eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,})   |
        (?P<bearer>(?i:bearer|basic)[ ](?=[^\s"']*[0-9=])[A-Za-z0-9._~+/\-]{12,}=*)
    )|
    (?P<private_key>-----BEGIN[ ][A-Z0-9 ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z0-9 ]*PRIVATE[ ]KEY-----|\Z))""",
    re.VERBOSE | re.DOTALL,
)
# A scheme is short, and so is a password: a longer search would be slow in long texts. A password may hold an ``@``,
# a slash or a question mark of its own. One slash is left of two where an address was taken for a path.
_USERINFO = re.compile(
    r"""(?P<scheme>\b[A-Za-z][A-Za-z0-9+.\-]{0,30}:)
    (?:
        //(?P<plain>[^/\s?#]*)@                                        |
        //(?P<odd>[^/\s?#:@\[\]"'<>]{0,300}:(?!/|\d+(?:[/?#\s"'<>]|$))[^\s@"'<>]{0,300})@   |
        /(?!/)(?P<path>[^/\s?#:@]{0,300}:[^\s@"'<>]{0,300})@
    )""",
    re.VERBOSE,
)
_NAME = r"(?<![A-Za-z0-9_.\-])(?P<name>[A-Za-z_.\-+][A-Za-z0-9_.\-]{1,63})"
_QUOTED = r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'"""
_VALUE = rf"""(?P<value>{_QUOTED}|[^\s"'`,;&|()\]}}<>]+)"""
_ASSIGNED = re.compile(rf"""{_NAME}(?P<between>["']?[ \t]{{0,3}}[=:][ \t]{{0,3}}(?={_QUOTED})|=){_VALUE}""")
_OPTION = re.compile(
    r"""(?<![A-Za-z0-9_.\-])(?P<name>--?[A-Za-z][A-Za-z0-9_.\-]{1,63})(?P<between>["']?,?[ ]{1,3})(?!["']?-)"""
    + _VALUE
)
_LINE = re.compile(
    rf"(?m)^[ \t]{{0,60}}(?:-[ ])?{_NAME}(?P<between>:[ \t]{{1,9}})(?P<value>[^\s\"']+)[ \t]*$"
)
_HEADER = re.compile(
    r"""(?i)\b(?P<name>(?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-auth-token)(?P<between>:[ \t]{1,3})"""
    r"""(?P<value>[^\s"'][^\r\n"']*)"""
)
# What says that there is no secret here: no value, or a place for one; and a number, unless it is a password.
_NO_SECRET = re.compile(r"None|null|nil|True|False|true|false|\*+|\.+|\$.*|\{.*|", re.DOTALL)
_NUMBER = re.compile(r"[-+]?[0-9][0-9_.]*(?:e[-+]?[0-9]+)?")
# A shorter text is left as it is.
SHORTEST_SECRET = 8


class Redactor:
    """Replaces secrets in texts by a mask, and says how many it found.

    Attributes:
        found: how many, by the secret's name, or by the kind of its shape: ``token of github``, ``userinfo of a URI``.
    """

    MASK = "[redacted]"

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._total = 0

    def is_secret_name(self, name: str) -> bool:
        """Tell whether a text under *name* is a secret, whatever it looks like."""
        return _plain(name) in _SECRET_NAMES

    def masked(self, name: str) -> str:
        """Return what stands for the text under the secret name *name*, and count it."""
        self._count(_plain(name))
        return self.MASK

    def redact(self, text: str) -> tuple[str, int]:
        """Return *text* without tokens of known shapes, userinfo in URIs and values of secret names, and the count."""
        if len(text) < SHORTEST_SECRET:
            return text, 0
        before = self._total
        text = _TOKEN_SHAPES.sub(self._without_token, text)
        if ":/" in text:
            text = _USERINFO.sub(self._without_user, text)
        if "=" in text or ":" in text:
            text = _ASSIGNED.sub(self._without_value, text)
            text = _HEADER.sub(self._without_value, text)
            text = _LINE.sub(self._without_value, text)
        if "-" in text and " " in text:
            text = _OPTION.sub(self._without_value, text)
        return text, self._total - before

    def redact_arguments(self, arguments: list[str]) -> tuple[list[str], int]:
        """Return command-line arguments without the values of secret options.

        They come as ``--token x``, ``--token=x`` and, as configuration tools have it, ``server.token=x``.
        """
        before = self._total
        cleaned: list[str] = []
        option = ""
        for argument in arguments:
            name, sign, _value = argument.partition("=")
            if option and not argument.startswith("--"):
                cleaned.append(self.masked(option))
                option = ""
                continue
            option = ""
            if sign and self.is_secret_name(name):
                cleaned.append(f"{name}={self.masked(name)}")
                continue
            if argument.startswith("-") and not sign and self.is_secret_name(argument):
                option = argument
            cleaned.append(self.redact(argument)[0])
        return cleaned, self._total - before

    def _count(self, kind: str) -> None:
        self.found[kind] += 1
        self._total += 1

    def _without_token(self, found: re.Match[str]) -> str:
        self._count(f"token of {found.lastgroup}" if found.lastgroup != "private_key" else "private key")
        return self.MASK

    def _without_user(self, found: re.Match[str]) -> str:
        user = found["plain"] or found["odd"] or found["path"] or ""
        if user != self.MASK:
            self._count("userinfo of a URI")
        slashes = "/" if found["path"] is not None else "//"
        return f"{found['scheme']}{slashes}{self.MASK}@"

    def _without_value(self, found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        bare = value[1:-1] if value[0] in "\"'" else value
        harmless = bare.startswith(self.MASK[:-1]) or bare == name or _NO_SECRET.fullmatch(bare)
        if harmless or not self.is_secret_name(name):
            return found[0]
        if _NUMBER.fullmatch(bare) and "pass" not in _plain(name) and "pwd" not in _plain(name):
            return found[0]
        start = found.start("value") - found.start()
        end = found.end("value") - found.start()
        quote = value[0] if value[0] in "\"'" else ""
        return f"{found[0][:start]}{quote}{self.masked(name)}{quote}{found[0][end:]}"


def _plain(name: str) -> str:
    """Return the last part of a name in the spelling in which names are compared."""
    last = re.split(r"[./:]", name.strip("-+"))[-1]
    return last.replace("_", "").replace("-", "").lower()
