"""What a browser shows of a runner in its container."""

import pytest
from containers.browser import Browser, words_of
from containers.project import Project


@pytest.mark.parametrize(
    ("service", "algorithm", "field"),
    [
        ("text-runner", "upper", '"text": "plug and play"'),
        ("nlp-runner", "language_detection", '"text": "W niedzielę'),
        ("meme-classifier-runner", "meme_classifier", '"image_url": "data:image/png;base64,'),
    ],
)
def test_docs_of_a_runner_show_the_fields_of_its_own_algorithm(
    up: Project, browser: Browser, service: str, algorithm: str, field: str
) -> None:
    url = f"{up.url(service, 8000)}/docs#/run/run_{algorithm}"
    html = browser.document(url)
    _, found, operation = html.partition(f'id="operations-run-run_{algorithm}"')
    assert found, words_of(html)[:2000]
    shown = words_of(operation.partition('id="operations-')[0])
    assert f"/run/{algorithm}" in shown.replace("\u200b", "")
    assert field in shown
    browser.screenshot(url, algorithm)
