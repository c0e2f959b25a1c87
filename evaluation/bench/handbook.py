"""From the sample documents to a ready service, and how well it answers the golden set."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from app.services import build_services
from app.settings import ServiceSettings
from evaluation.bench.children import ingest, running_service
from evaluation.bench.figures import Aim, Figure, Part, share
from evaluation.bench.options import Options
from evaluation.golden import Question, read_golden
from evaluation.quality import Answered, Ranking, ask_all, contains_answer, in_top, missed, rank

PART = "handbook"
TOP = 5
TOPIC_SWITCH = "topic_switch"


@dataclass(frozen=True, slots=True)
class GoldenRun:
    """What came of a golden set: searches as asked, searches by the last turn alone, answers."""

    rankings: Sequence[Ranking]
    last_turns: Sequence[Ranking]
    answers: Sequence[Answered]


def measure_handbook(options: Options) -> Part:
    """Ingest into an empty folder, start the service, search and answer each question of the golden set."""
    questions = read_golden(options.golden)
    data_dir = options.scratch / "handbook"
    options.say("ingesting the documents and starting the service")
    began = time.perf_counter()
    report = ingest(options.config, data_dir)
    ingested_s = time.perf_counter() - began
    with running_service(options.config, data_dir, options.key) as service:
        ready_s = time.perf_counter() - began
    options.say(f"answering {len(questions)} questions")
    golden = asyncio.run(_run(options.settings.model_copy(update={"data_dir": data_dir}), questions))
    data = f"{options.config.stem}, {report['documents']} documents, {report['chunks']} chunks"
    figures = [
        Figure(PART, "fresh ingest to ready service", ready_s, "s", data, Aim(45)),
        Figure(PART, "of which ingest", ingested_s, "s", data),
        Figure(PART, "of which start of the service", service.ready_s, "s", data),
    ]
    quality = golden_figures(golden, options.golden.name)
    return Part((*figures, *quality.figures), quality.misses)


async def _run(settings: ServiceSettings, questions: Sequence[Question]) -> GoldenRun:
    services = build_services(settings)
    await services.start()
    try:
        rankings = await rank(services, questions)
        last_turns = await rank(services, [question for question in questions if is_follow_up(question)], use_history=False)
        return GoldenRun(rankings, last_turns, await ask_all(services, questions))
    finally:
        await services.close()


def is_follow_up(question: Question) -> bool:
    """Whether a question continues a conversation. One that changes the topic has a history, too, and does not."""
    return bool(question.history) and question.kind != TOPIC_SWITCH


def golden_figures(golden: GoldenRun, data: str) -> Part:
    """The figures of a golden set, with the ids that count against them."""
    follow_ups = [ranking for ranking in golden.rankings if is_follow_up(ranking.question)]
    switches = [ranking for ranking in golden.rankings if ranking.question.kind == TOPIC_SWITCH]
    figures = [
        *_top("gold document in top 5", golden.rankings, data, Aim(95, at_least=True)),
        *_top("follow-ups, top 5", follow_ups, data, Aim(85, at_least=True)),
        *_top("follow-ups by the last turn only, top 5", golden.last_turns, data),
        *_top("topic switches, top 5", switches, data),
    ]
    kinds = sorted(
        {ranking.question.kind for ranking in golden.rankings if ranking.question.is_answerable} - {TOPIC_SWITCH, ""}
    )
    for kind in kinds:
        figures += _top(f"kind {kind}, top 5", [ranking for ranking in golden.rankings if ranking.question.kind == kind], data)

    answerable = [answered for answered in golden.answers if answered.question.is_answerable]
    quotable = [answered for answered in answerable if answered.question.answers]
    without = [answered.question.id for answered in quotable if not contains_answer(answered)]
    unanswerable = [answered for answered in golden.answers if not answered.question.is_answerable]
    invented = [answered.question.id for answered in unanswerable if not answered.answer.abstained]
    silent = [answered.question.id for answered in answerable if answered.answer.abstained]
    abstained = len(unanswerable) - len(invented)
    figures += [
        *share(PART, "answer string in the answer", len(quotable) - len(without), len(quotable), data, Aim(80, at_least=True)),
        *share(PART, "abstains on unanswerable", abstained, len(unanswerable), data, Aim(60, at_least=True)),
        *share(PART, "false abstention", len(silent), len(answerable), data, Aim(10)),
    ]
    misses = {
        "gold document in top 5": missed(golden.rankings, TOP),
        "follow-ups by the last turn only, top 5": missed(golden.last_turns, TOP),
        "answer string in the answer": without,
        "abstains on unanswerable": invented,
        "false abstention": silent,
    }
    return Part(tuple(figures), misses)


def _top(name: str, rankings: Sequence[Ranking], data: str, aim: Aim | None = None) -> list[Figure]:
    return share(PART, name, *in_top(rankings, TOP), data, aim)
