"""Function words: those that carry grammar, not content. Used where the content of a question is weighed; imports nothing."""

from __future__ import annotations

import re

WORD = re.compile(r"\w+", re.UNICODE)

_ENGLISH = """
a about after all also am an and any are as at be because been before being between both but by can cannot could did do does
doing done each else ever every for from further get gets give given had has have having he her here hers him his how however i
if in into is it its itself just know let like many may me might mine more most much must my need no nor not of off on once one
only or other our ours out over own please same say shall she should so some still such tell than that the their theirs them
then there these they this those through to too under until up us very want was we were what when where whether which while who
whom whose why will with within without would yes yet you your yours s t re ve ll d m
"""
_GERMAN = """
aber alle allem allen aller alles als also am an auch auf aus bei beim bin bis bist da damit dann das dass dein deine dem den
denn der des die dies diese diesem diesen dieser dieses doch dort du durch ein eine einem einen einer eines er es etwas euch
euer für gibt habe haben hat hatte ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ins ist ja jede jedem jeden jeder jedes
kann kannst können könnte man manche mehr mein meine mich mir mit muss müssen nach nicht nichts noch nun nur ob oder ohne sehr
sein seine seinem seinen seiner sich sie sind so soll sollen sollte über um und uns unser unsere unter vom von vor war waren
warum was weil welche welchem welchen welcher welches wenn wer werden wie wieder wieviel viel viele wann wo wohin womit wird
wurde würde zu zum zur zwischen
"""
_SPANISH = """
a al algo alguna alguno ante antes aquí así aún como cómo con contra cual cuál cuales cuáles cuando cuándo cuanta cuánta cuantas
cuántas cuanto cuánto cuantos cuántos de debe deben del desde donde dónde durante e el él ella ellas ellos en entre era eres es
esa ese eso esta está estas este esto estos están fue ha hace hacen hacer han hasta hay he la las le les lo los más me mi mis
mucho muy nada ni no nos nosotros o os para pero por porque puede pueden puedo que qué quien quién quienes se ser si sí sin
sobre son soy su sus también tan tanto te tengo ti tiene tienen todo todos tu tus un una uno unos y ya yo
"""

LONGEST_COURTESY = 80
_COURTESY = re.compile(
    r"(?:(?:hello|hi|hey|greetings|thanks?|thx|cheers|bye|goodbye|please|hallo|moin|servus|danke|bitte|tschüss|hola|gracias|adiós|"
    r"(?:thank|thanks to) you|good (?:morning|day|afternoon|evening|night)|very much|a lot|so much|there|"
    r"(?:can|could|will|would) (?:you|someone|anyone) (?:please )?help(?: me)?|help(?: me)?|i need help|"
    r"guten? (?:tag|morgen|abend|nacht)|grüß gott|vielen dank|(?:danke )?(?:schön|sehr)|hilfe|"
    r"(?:können sie|kannst du|könnten sie) (?:mir )?(?:bitte )?helfen|"
    r"buen[oa]s? (?:días?|tardes?|noches?)|muchas gracias|por favor|ayuda|(?:puede|puedes|me puede|me puedes) ayudar(?:me)?)"
    r"(?: |$))+"
)

FUNCTION_WORDS = {
    "en": frozenset(_ENGLISH.split()),
    "de": frozenset(_GERMAN.split()),
    "es": frozenset(_SPANISH.split()),
}


_ANY: frozenset[str] = frozenset().union(*FUNCTION_WORDS.values())


def function_words(language: str | None) -> frozenset[str]:
    """The function words of a language; where it is unknown or has no list, those of all lists."""
    return FUNCTION_WORDS.get((language or "").split("-")[0].lower(), _ANY)


def content_words(text: str, language: str | None) -> list[str]:
    """The lower-cased words of a text that are not function words, each once, in order.

    Where the language is unknown or has no list, the lists of all languages count.
    """
    skipped = function_words(language)
    return [word for word in dict.fromkeys(WORD.findall(text.lower())) if word not in skipped]


def asks_nothing(text: str) -> bool:
    """Whether a text is nothing but a greeting, thanks or a call for help, in English, German or Spanish."""
    return len(text) <= LONGEST_COURTESY and _COURTESY.fullmatch(" ".join(WORD.findall(text.lower()))) is not None
