"""WikiText-2 as lm-evaluation-harness reads it. task_fixtures.py and perplexity_agreement.py use it."""

import re


def articles(text):
    """Returns the articles of a split. Each begins with its heading."""
    found = []
    for line in text.splitlines(keepends=True):
        if not found or re.match(r"^ = [^=].* = $", line.rstrip("\r\n")):
            found.append("")
        found[-1] += line
    return [article for article in found if article.strip()]


def detokenised(text):
    """Returns an article as the harness scores it."""
    text = re.sub(r"/' [0-9]/", r"/'[0-9]/", text.replace("s '", "s'"))
    for sign in "-,.":
        text = text.replace(f" @{sign}@ ", sign)
    for sign in ":;.!?,":
        text = text.replace(f" {sign} ", f"{sign} ")
    text = re.sub(r"\(\s*([^\)]*?)\s*\)", r"(\1)", text)
    text = re.sub(r"\[\s*([^\]]*?)\s*\]", r"[\1]", text)
    text = re.sub(r"{\s*([^}]*?)\s*}", r"{\1}", text)
    text = re.sub(r'"\s*([^"]*?)\s*"', r'"\1"', text)
    text = re.sub(r"'\s*([^']*?)\s*'", r"'\1'", text)
    for a, b in [("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" \u00b0 ", "\u00b0"), (" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s")]:
        text = text.replace(a, b)
    return text
