"""The language of a text, where it can be told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from corpus import language as language_module
from corpus.language import detect_language, known_languages, language_of_question
from corpus.lexical import STEMMED

QUESTIONS = {
    "en": (
        "How many vacation days do I get?",
        "Who approves my travel expenses?",
        "When is the office closed?",
        "Where do I pick up my badge?",
        "What does error E-4410 mean?",
        "Can I work from home on Fridays?",
        "How do I reset my password?",
        "Is parking free for visitors?",
        "Which form is needed for a trip?",
        "What is the notice period?",
    ),
    "de": (
        "Wie viele Urlaubstage habe ich?",
        "Wer genehmigt meine Reisekosten?",
        "Wann ist das Büro geschlossen?",
        "Wo bekomme ich meinen Ausweis?",
        "Was bedeutet der Fehler E-4410?",
        "Darf ich freitags zu Hause arbeiten?",
        "Wie setze ich mein Passwort zurück?",
        "Ist das Parken für Gäste kostenlos?",
        "Welches Formular brauche ich für eine Reise?",
        "Wie lang ist die Kündigungsfrist?",
    ),
    "es": (
        "¿Cuántos días de vacaciones tengo?",
        "¿Quién aprueba mis gastos de viaje?",
        "¿Cuándo está cerrada la oficina?",
        "¿Dónde recojo mi tarjeta de acceso?",
        "¿Qué significa el error E-4410?",
        "¿Puedo trabajar desde casa los viernes?",
        "¿Cómo cambio mi contraseña?",
        "¿Es gratis el aparcamiento para visitantes?",
        "¿Qué formulario necesito para un viaje?",
        "¿Cuál es el plazo de preaviso?",
    ),
    "fr": (
        "Combien de jours de congé ai-je ?",
        "Qui approuve mes frais de voyage ?",
        "Quand le bureau est-il fermé ?",
        "Où retirer mon badge ?",
        "Que signifie l'erreur E-4410 ?",
        "Puis-je travailler de chez moi le vendredi ?",
        "Comment changer mon mot de passe ?",
        "Le parking est-il gratuit pour les visiteurs ?",
        "Quel formulaire faut-il pour un voyage ?",
        "Quel est le délai de préavis ?",
    ),
    "it": (
        "Quanti giorni di ferie ho?",
        "Chi approva le mie spese di viaggio?",
        "Quando è chiuso l'ufficio?",
        "Dove ritiro il mio badge?",
        "Che cosa significa l'errore E-4410?",
        "Posso lavorare da casa il venerdì?",
        "Come cambio la mia password?",
        "Il parcheggio è gratuito per i visitatori?",
        "Quale modulo serve per un viaggio?",
        "Qual è il periodo di preavviso?",
    ),
    "nl": (
        "Hoeveel vakantiedagen heb ik?",
        "Wie keurt mijn reiskosten goed?",
        "Wanneer is het kantoor gesloten?",
        "Waar haal ik mijn toegangspas op?",
        "Wat betekent fout E-4410?",
        "Mag ik op vrijdag thuis werken?",
        "Hoe wijzig ik mijn wachtwoord?",
        "Is parkeren gratis voor bezoekers?",
        "Welk formulier heb ik nodig voor een reis?",
        "Hoe lang is de opzegtermijn?",
    ),
}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Expense reports are due within thirty days of the last day of travel.", "en"),
        ("Reisekostenabrechnungen sind innerhalb von dreißig Tagen nach der Reise einzureichen.", "de"),
        ("Las tarjetas de acceso se recogen en la recepción del edificio por la mañana.", "es"),
        ("Les notes de frais doivent être remises dans les trente jours suivant le voyage.", "fr"),
        ("short", None),
        ("", None),
        (" \n" * 100, None),
    ],
)
def test_a_text_long_enough_is_recognised(text: str, language: str | None) -> None:
    """Four languages are told apart; too little text is no language."""
    assert detect_language(text) == language


@pytest.mark.parametrize("text", ["\x00" * 100, "😀" * 100, "\ud800" * 100, "1234 5678 " * 20, "שלום " * 40])
def test_odd_text_does_not_raise(text: str) -> None:
    """Threat C2: any Unicode gets an answer, be it none."""
    assert detect_language(text) in {None, *STEMMED}


def test_most_short_questions_are_decided_and_none_wrongly() -> None:
    """Of 60 questions in six languages at most two are left open, and no language is taken for another."""
    told = [(language, language_of_question(text)) for language, texts in QUESTIONS.items() for text in texts]
    assert len(told) == 60
    assert [pair for pair in told if pair[1] not in {pair[0], None}] == []
    assert sum(found is None for _, found in told) <= 2


@pytest.mark.parametrize("spelled", [str.lower, str.upper])
def test_case_does_not_change_a_questions_language(spelled: Callable[[str], str]) -> None:
    """People type as they like: nothing is taken for another language, and as few are left open."""
    told = [(language, language_of_question(spelled(text))) for language, texts in QUESTIONS.items() for text in texts]
    assert [pair for pair in told if pair[1] not in {pair[0], None}] == []
    assert sum(found is None for _, found in told) <= 2


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Kolik mám dní dovolené?", "cs"),
        ("Скільки днів відпустки я маю?", "uk"),
        ("有給休暇は何日ありますか", "ja"),
        ("Quants dies de vacances tinc?", "ca"),
    ],
)
def test_a_language_that_is_not_stemmed_is_not_taken_for_its_neighbour(text: str, language: str) -> None:
    """Czech is not Hungarian, Ukrainian not Russian, Catalan not French, though only the second of each are stemmed."""
    assert language not in STEMMED
    assert language_of_question(text) == language


@pytest.mark.parametrize("text", ["", " ", "?", "E-4410", "TR-204?", "VPN", "ok", "laptop", "2026", "😀", "\ud800", "\x00"])
def test_a_word_or_a_code_is_in_no_language(text: str) -> None:
    """What could be any language is none."""
    assert language_of_question(text) is None


def test_only_known_languages_are_told() -> None:
    """All that is stemmed but for bokmål, which is told as Norwegian, and others; what is no language is not among them."""
    known = known_languages()
    assert set(STEMMED) - known == {"nb"}
    assert {"pl", "ja"} < known
    assert known & {"zxx", "und"} == set()
    assert all(
        language_of_question(text) in {None, *known} for text in ("x" * 50_000, "\ud800" * 100, "1234 " * 50, "שלום " * 40)
    )


def test_the_model_is_unpacked_in_memory() -> None:
    """The same model as the package unpacks to a file in /tmp; where nothing can be written, the first question needs none."""
    theirs = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    ours, _ = language_module._load()
    for name in ("nb_ptc", "nb_pc"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for name in ("labels", "tk_nextmove", "tk_row", "tk_output", "_norm_probs"):
        assert getattr(ours, name) == getattr(theirs, name), name
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from corpus.language import detect_language; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); print(detect_language('Las tarjetas se recogen en la recepción.'))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("es\n", "")


def test_the_model_is_loaded_only_when_a_language_is_asked_for() -> None:
    """It takes 75 MB, and many of those who import this never ask."""
    code = (
        "from corpus import language as l; assert l._load.cache_info().currsize == 0; "
        "l.language_of_question('a'); l.detect_language('a' * 50); l.known_languages(); assert l._load.cache_info().misses == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
