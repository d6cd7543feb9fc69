"""Where the book's source lies and where the book is published, from one address.

Both follow from `repository` in _config.yml; without it nothing is linked.
"""

import re


def source_url(app, path: str, line: int | None = None) -> str:
    """Return the public address of a file of the repository, '' if there is none."""
    theme = app.config.html_theme_options
    url, branch = theme.get("repository_url"), theme.get("repository_branch") or "main"
    if not url:
        return ""
    return f"{url.rstrip('/')}/blob/{branch}/{path}" + (f"#L{line}" if line else "")


def site_url(app) -> str:
    """Return the address of the published book with its last slash, '' if unknown.

    It is `html_baseurl` where that is set, else GitHub's page of the repository.
    """
    if app.config.html_baseurl:
        return app.config.html_baseurl.rstrip("/") + "/"
    url = app.config.html_theme_options.get("repository_url") or ""
    github = re.fullmatch(r"https://github\.com/([^/]+)/([^/]+?)(?:\.git)?/?", url)
    if not github:
        return ""
    owner, name = github.groups()
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"
