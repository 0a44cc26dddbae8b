"""The frame that all widgets share, seen through the attention widget's module."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.harness import states
from tests.browser.harness.mounting import IDLE, Mounted, mount
from tests.browser.hosts.drivers import new_page


def show(page: Page, **changes: Any) -> Mounted:
    return mount(page, "attention_pattern.js", states.attention(changed=True) | changes)


def show_with_stopped_clock(page: Page) -> Mounted:
    """Time passes only when the test says so, or a slow machine would use up the widget's patience."""
    page.clock.install(time=0)
    mounted = show(page)
    page.clock.pause_at(600_000)
    return mounted


def test_prompt_is_edited_in_place_and_sent_untrimmed(page: Page) -> None:
    mounted = show(page)
    page.get_by_role("button", name="Edit prompt").click()
    editor = page.get_by_role("textbox", name="prompt")
    expect(editor).to_have_value("When John and Mary went to the store, Mary gave the bag to")
    editor.fill("  one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two ")
    page.keyboard.press("Enter")
    assert mounted.requests()[-1]["prompt"] == "  one\ntwo "
    expect(editor).to_be_hidden()
    expect(page.get_by_role("button", name="Edit prompt")).to_be_focused()


def test_escape_cancels_the_edit_and_a_click_on_a_token_starts_it(page: Page) -> None:
    mounted = show(page)
    page.locator(".iw-token").nth(3).click()
    editor = page.get_by_role("textbox", name="prompt")
    expect(editor).to_be_focused()
    page.keyboard.type("never sent")
    page.keyboard.press("Escape")
    expect(editor).to_be_hidden()
    assert mounted.requests() == []


def test_a_prompt_that_was_given_as_ids_is_edited_as_ids_or_replaced_by_text(page: Page) -> None:
    tokens = [{"id": i, "text": str(i), "raw": "", "special": False} for i in (5, 7, 9)]
    mounted = show(page, _prompt={"text": None, "bos": "no BOS", "tokens": tokens})
    editor = page.get_by_role("textbox", name="prompt")
    for typed, sent in ((None, [5, 7, 9]), ("5, 17", [5, 17]), ("5 to 17", "5 to 17")):
        page.get_by_role("button", name="Edit prompt").click()
        expect(editor).to_have_value("5, 7, 9")
        if typed is not None:
            editor.fill(typed)
        editor.press("Enter")
        assert mounted.requests()[-1]["prompt"] == sent


def test_experiments_toggle_and_go_without_losing_the_keyboard(page: Page) -> None:
    mounted = show(page)
    chip = page.get_by_role("list", name="Experiments").get_by_role("button", name="z L23H3 → 0", exact=True)
    expect(chip).to_have_attribute("title", re.compile(r"^iw\.Ablate\('z', layer=23, head=3\)\n"))
    chip.focus()
    page.keyboard.press("Enter")
    assert (mounted.requests()[-1]["op"], mounted.requests()[-1]["index"]) == ("toggle", 0)
    off = [states.experiment("z L23H3 → 0", on=False, note="changed nothing")]
    mounted.push(_experiments=off)
    expect(chip).to_have_attribute("aria-pressed", "false")
    expect(chip).to_be_focused()
    expect(page.get_by_text("changed nothing")).to_be_visible()
    page.get_by_role("button", name="Remove z L23H3 → 0").click()
    assert mounted.requests()[-1]["op"] == "remove"


def test_undo_and_redo_follow_the_history_and_the_keyboard(page: Page) -> None:
    mounted = show(page)
    expect(page.get_by_role("button", name="Redo")).to_be_disabled()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("grid", name="All heads").focus()
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+Z")
    assert [request["op"] for request in mounted.requests()] == ["undo", "undo", "redo"]


def test_running_shows_progress_a_veil_and_stop(page: Page) -> None:
    mounted = show(page)
    root = page.get_by_role("figure", name="Attention pattern")
    page.get_by_role("button", name="Undo").click()
    expect(root).to_have_attribute("data-state", "pending")
    mounted.answer("running", done=12, total=30)
    progress = page.get_by_role("progressbar")
    expect(progress).to_have_attribute("aria-valuenow", "12")
    expect(page.get_by_text("running · 12 of 30")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    assert mounted.requests()[-1]["op"] == "stop"
    mounted.answer("cancelled")
    expect(root).to_have_attribute("data-state", "stale")
    expect(progress).to_be_hidden()
    expect(page.get_by_text("stopped: the picture is from the run before").first).to_be_visible()


def test_status_line_keeps_its_height_while_running(page: Page) -> None:
    mounted = show(page)
    heights = [page.locator(".iw-root").bounding_box()]
    page.get_by_role("button", name="Undo").click()
    mounted.answer("running", done=1, total=3)
    heights.append(page.locator(".iw-root").bounding_box())
    mounted.answer(ms=12)
    heights.append(page.locator(".iw-root").bounding_box())
    assert len({box["height"] for box in heights if box}) == 1


def test_error_is_drawn_where_the_user_looks_and_goes_with_the_next_run(page: Page) -> None:
    mounted = show(page)
    page.get_by_role("button", name="Undo").click()
    aligned = "clean      When ␣John\ncorrupted  When ␣Jo hn"
    error = {"title": "Prompts differ in length", "text": aligned, "hint": "Choose another name."}
    mounted.answer("error", error=error)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Prompts differ in length")
    assert alert.locator("pre").inner_text() == aligned
    expect(page.get_by_role("figure", name="Attention pattern")).to_have_attribute("data-state", "stale")
    page.get_by_role("button", name="Undo").click()
    mounted.answer()
    expect(alert).to_have_count(0)


def test_dead_kernel_is_said_after_three_seconds_and_a_late_answer_takes_it_back(page: Page) -> None:
    mounted = show_with_stopped_clock(page)
    alert = page.get_by_role("alert")
    page.get_by_role("button", name="Undo").click()
    page.clock.run_for(2900)
    expect(alert).to_have_count(0)
    page.clock.run_for(200)
    expect(alert).to_contain_text("Not connected to a kernel, or it is busy")
    mounted.answer()
    expect(alert).to_have_count(0)


def test_a_kernel_that_falls_silent_while_it_runs_is_said_after_half_a_minute(page: Page) -> None:
    mounted = show_with_stopped_clock(page)
    said = page.get_by_text("no word from the kernel")
    page.get_by_role("button", name="Undo").click()
    mounted.answer("running")
    page.clock.run_for(29_000)
    mounted.answer("running", done=1, total=2)
    page.clock.run_for(29_000)
    expect(said).to_have_count(0)
    page.clock.run_for(2000)
    expect(said).to_be_visible()
    mounted.answer()
    expect(said).to_have_count(0)
    page.clock.run_for(60_000)
    expect(said).to_have_count(0)


@pytest.mark.parametrize("view", [{}, {"view": None}])
def test_what_came_without_its_numbers_is_an_error_and_the_next_whole_answer_takes_it_back(
    browser: Browser, view: dict[str, None]
) -> None:
    with new_page(browser) as page:
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        mounted = show(page)
        root = page.get_by_role("figure", name="Attention pattern")
        whole = states.attention(changed=True)["_baseline_overview"]
        lost = {"dtype": "uint8", "shape": whole["weights"]["shape"], **view}
        mounted.push(_baseline_overview={**whole, "id": 7, "weights": lost})
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("What the kernel sent cannot be drawn")
        expect(alert).to_contain_text("binary part")
        expect(root).to_have_attribute("data-state", "stale")
        mounted.push(_baseline_overview={**whole, "id": 8})
        expect(alert).to_have_count(0)
        expect(root).to_have_attribute("data-state", "fresh")
        assert len(errors) == 1
        assert "binary part" in errors[0]


def test_a_request_carries_those_that_were_not_answered_yet(page: Page) -> None:
    mounted = show(page)
    for button in ("Undo", "Code", "Undo"):
        page.get_by_role("button", name=button).click()
    first, second = mounted.sent("_request")
    assert second["before"] == [first]
    mounted.answer()
    page.get_by_role("button", name="Undo").click()
    assert "before" not in mounted.sent("_request")[-1]


def test_a_request_that_stays_unanswered_is_said_again_past_what_holds_it_back(page: Page) -> None:
    mounted = show_with_stopped_clock(page)
    page.get_by_role("button", name="Undo").click()
    page.clock.run_for(3_500)
    assert mounted.sent("message") == 2 * [{"request": mounted.sent("_request")[0]}]
    page.clock.run_for(600_000)
    assert len(mounted.sent("message")) == 4
    page.get_by_role("button", name="Undo").click()
    mounted.answer("queued")
    page.clock.run_for(600_000)
    assert len(mounted.sent("message")) == 4


def test_answered_request_raises_no_alarm(page: Page) -> None:
    mounted = show_with_stopped_clock(page)
    page.get_by_role("button", name="Undo").click()
    mounted.answer("queued")
    page.clock.run_for(10_000)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_closed_session_says_so(page: Page) -> None:
    mounted = show(page)
    mounted.push(_status={**IDLE, "state": "closed"})
    expect(page.get_by_role("alert")).to_contain_text("session is closed")


def test_markup_in_tokens_is_shown_as_text(page: Page) -> None:
    evil = "<img src=x onerror=\"document.title='run'\">"
    state = states.attention(changed=True)
    for token in state["_prompt"]["tokens"]:
        token["text"] = evil
    for row in state["_predictions"]["rows"]:
        row["text"] = evil
    state["_title"] = state["_code"] = state["_header"]["model"] = evil
    state["_experiments"] = [states.experiment(evil, evil, note=evil, name=name, group=evil) for name in ("", evil)]
    state["_status"] = {**IDLE, "message": evil, "error": {"title": evil, "text": evil, "hint": evil}}
    mounted = mount(page, "attention_pattern.js", state)
    mounted.settle()
    assert page.locator("img[src]").count() == 0
    assert page.title() == "harness"
    expect(page.get_by_role("table").get_by_title(evil)).to_have_count(10)


def test_theme_follows_what_a_host_paints_around_the_widget(page: Page) -> None:
    """As Solara does, which marks neither body nor html."""
    mounted = show(page)
    root = page.locator(".iw-root")
    page.evaluate("""() => {
      delete document.body.dataset.jpThemeLight;
      const style = document.createElement("style");
      style.textContent = ".night { background: #212121 }";
      document.head.append(style);
      document.querySelector("main").className = "night";
    }""")
    expect(root).to_have_attribute("data-iw-theme", "dark")
    page.evaluate("() => { document.querySelector('main').className = ''; }")
    expect(root).to_have_attribute("data-iw-theme", "light")
    mounted.theme(dark=True)
    expect(root).to_have_attribute("data-iw-theme", "dark")


def test_theme_follows_the_host_and_the_canvas_follows_the_theme(page: Page) -> None:
    mounted = show(page)
    root = page.get_by_role("figure", name="Attention pattern")
    expect(root).to_have_attribute("data-iw-theme", "light")
    tile = (30 + 20, 30 + 3)
    light = mounted.pixel("All heads", *tile)
    mounted.theme(dark=True)
    expect(root).to_have_attribute("data-iw-theme", "dark")
    mounted.settle()
    dark = mounted.pixel("All heads", *tile)
    assert sum(light[:3]) > 600
    assert sum(dark[:3]) < 300


def test_code_is_shown_on_demand(page: Page) -> None:
    show(page)
    code = page.get_by_text("iw.AttentionPattern(session, 'When John')")
    expect(code).to_be_hidden()
    page.get_by_role("button", name="Code").click()
    expect(code).to_be_visible()


@pytest.mark.parametrize("name", ["Code", "History", "Keys"])
def test_escape_closes_what_a_button_opened_and_goes_back_to_it(page: Page, name: str) -> None:
    show(page)
    button = page.get_by_role("button", name=name, exact=True)
    for inside in (False, True):
        button.focus()
        page.keyboard.press("Enter")
        expect(button).to_have_attribute("aria-expanded", "true")
        if inside and name == "Code":
            page.get_by_label("Python that rebuilds what is shown").focus()
        page.keyboard.press("Escape")
        expect(button).to_have_attribute("aria-expanded", "false")
        expect(button).to_be_focused()


def test_keys_stay_in_the_widget(page: Page) -> None:
    show(page)
    page.evaluate(
        "() => { window.heard = []; document.addEventListener('keydown', (event) => heard.push(event.key)); }"
    )
    page.get_by_role("button", name="Code").focus()
    for key in ("d", "Escape", "Control+s"):
        page.keyboard.press(key)
    assert page.evaluate("heard") == ["Control", "s"]
