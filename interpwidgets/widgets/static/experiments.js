// The experiments as a strip of chips: each switched, renamed, moved, grouped, removed, its strength typed in place.
import { h, fill, attribute, keepFocus } from "./dom.js";
import { baselineWords, pinnedIn } from "./baseline.js";
import { closeFromOutside, menu } from "./menu.js";

/**
 * @typedef {{label: string, name: string, group: string, code: string, on: boolean, note: string,
 *   strength: {value: number, before: string, after: string} | null}} Experiment
 * @typedef {{group: string, members: number[]}} Cluster
 * @typedef {{kind: "name", index: number} | {kind: "group", group: string}} Editing what is being renamed
 */

const DRAG = 6; // pixels before a press is a drag
const HELP = "click: switch on or off · F2: rename · Shift+← →: move · Delete: remove";

/**
 * Experiments in a row that share a group; one alone is a cluster without a name.
 * @param {Experiment[]} all
 * @returns {Cluster[]}
 */
export function clusters(all) {
  /** @type {Cluster[]} */
  const found = [];
  all.forEach(({ group }, index) => {
    const last = found[found.length - 1];
    if (group && last?.group === group) last.members.push(index);
    else found.push({ group, members: [index] });
  });
  return found;
}

/**
 * The indices and the name of the group that an experiment makes with the one before it.
 * @param {Experiment[]} all
 * @param {number} index at least 1
 * @returns {{indices: number[], name: string}}
 */
export function joined(all, index) {
  const before = all[index - 1].group;
  const taken = new Set(all.map((experiment) => experiment.group));
  let number = 1;
  while (taken.has(`group ${number}`)) number += 1;
  const own = all.flatMap((experiment, i) => (before && experiment.group === before ? [i] : []));
  return { indices: [...(before ? own : [index - 1]), index], name: before || `group ${number}` };
}

/**
 * Where an experiment of an earlier list stands in a later one; what was changed in its place is still the same one.
 * @param {Experiment[]} later
 * @param {Experiment[]} earlier
 * @param {number} index
 * @returns {number} -1 if it is gone
 */
export function indexIn(later, earlier, index) {
  const identity = (/** @type {Experiment} */ { code, name, on }) => JSON.stringify([code, name, on]);
  const [before, after] = [earlier.map(identity), later.map(identity)];
  const at = after[index] === before[index] ? index : after.indexOf(before[index]);
  return at < 0 && after.length === before.length && !before.includes(after[index]) ? index : at;
}

/**
 * @param {import("./wire.js").Wire} wire
 * @param {AbortSignal} signal
 */
export function createExperiments(wire, signal) {
  const list = h("div", { class: "iw-chips" });
  const pinned = h("div", { class: "iw-row iw-baseline" });
  const el = h("div", { class: "iw-experiments" }, h("div", { class: "iw-row" }, h("span", { class: "iw-row__label" }, "experiments"), list), pinned);
  let shown = "";
  /** @type {Editing | null} */
  let editing = null;
  /** @type {string | null} the chip or group whose menu is open */
  let open = null;
  /** @type {Experiment[]} as they are drawn: what chips say and ask for is of these */
  let drawn = [];
  /** @type {{id: number, index: number, to: number} | null} the last step that was asked for, while Python has not answered: the next goes on from `to` */
  let step = null;
  /** @returns {Experiment[]} */
  const all = () => wire.model.get("_experiments") ?? [];
  /** @param {number} index of one that is drawn */
  const now = (index) => indexIn(all(), drawn, index);

  closeFromOutside(list, signal, () => {
    open = null;
  });

  /** @param {string | null} key */
  function show(key) {
    open = key;
    draw(true);
  }
  /** @param {string} name */
  function commit(name) {
    const what = editing;
    const index = what?.kind === "name" ? now(what.index) : -1;
    editing = null;
    draw(true);
    if (what?.kind === "name") {
      const shown = all()[index];
      const given = name === shown?.label ? "" : name; // a label changes with the strength, and is no name
      if (shown && given !== shown.name) wire.request("rename", { index, name: given });
    } else if (what && name && all().some(({ group }) => group === what.group)) wire.request("rename_group", { group: what.group, name });
  }
  /** @param {string} value @param {string} label @param {string} key */
  function nameInput(value, label, key) {
    const input = h("input", {
      class: "iw-chip__input", type: "text", dir: "auto", value, size: Math.max(6, value.length), "aria-label": label, "data-key": key,
      onblur: () => editing && commit(input.value.trim()),
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        if (event.key !== "Enter" && event.key !== "Escape") return;
        event.preventDefault(); // or Enter would press what gets the focus next
        if (event.key === "Enter") return commit(input.value.trim());
        editing = null;
        draw(true);
      },
    });
    return input;
  }
  /** @param {string} key @param {string} label @param {[text: string, act: () => void][]} actions */
  function more(key, label, actions) {
    return menu({
      key, label: `More for ${label}`, list: label, text: "⋯", kind: "iw-chip__more", open: open === key,
      show: (on) => show(on ? key : null),
      choose(act) {
        open = null;
        act();
        draw(true);
      },
    }, actions);
  }
  /** @param {number} index @param {number} to */
  function move(index, to) {
    return to >= 0 && to < all().length && to !== index ? wire.request("move", { index, to }) : 0;
  }
  /** @param {number} index @param {number} by */
  function moveBy(index, by) {
    const from = step?.index === index ? step.to : index;
    const id = move(from, from + by);
    if (id) step = { id, index, to: from + by };
  }
  /** @param {KeyboardEvent} event @param {number} index */
  function keyOnChip(event, index) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "F2") rename(index);
    else if (event.key === "Delete") wire.request("remove", { index });
    else if (event.shiftKey && event.key === "ArrowLeft") moveBy(index, -1);
    else if (event.shiftKey && event.key === "ArrowRight") moveBy(index, 1);
    else return;
    event.preventDefault();
  }
  /** @param {number} index */
  function rename(index) {
    editing = { kind: "name", index };
    draw(true);
  }
  /** A chip is dragged to the place of another; the click that ends a drag does nothing. @param {HTMLElement} handle @param {number} index */
  function draggable(handle, index) {
    let dragged = false;
    handle.onpointerdown = (down) => {
      dragged = false;
      const end = new AbortController();
      const target = (/** @type {PointerEvent} */ event) => {
        const root = /** @type {Document | ShadowRoot} */ (list.getRootNode());
        const chip = root.elementFromPoint(event.clientX, event.clientY)?.closest("[data-index]");
        return chip && list.contains(chip) ? /** @type {HTMLElement} */ (chip) : null;
      };
      const mark = (/** @type {Element | null} */ on) => list.querySelectorAll("[data-index]").forEach((chip) => attribute(chip, "data-drop", chip === on));
      const options = { signal: AbortSignal.any([end.signal, signal]) };
      window.addEventListener("pointermove", (event) => {
        dragged ||= Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) > DRAG;
        if (dragged) mark(target(event));
      }, options);
      window.addEventListener("pointercancel", () => end.abort(), options);
      window.addEventListener("pointerup", (event) => {
        end.abort();
        const on = dragged ? target(event) : null;
        mark(null);
        if (on) move(index, Number(on.dataset.index));
      }, options);
    };
    return () => dragged;
  }
  /** @param {Experiment} experiment @param {number} index */
  function chip(experiment, index) {
    const { strength, label } = experiment;
    const called = experiment.name || label;
    const inPlace = strength && !experiment.name;
    const name = h("button", { type: "button", class: "iw-chip__name", title: `${experiment.code}\n${HELP}`, "aria-pressed": experiment.on ? "true" : "false",
      "aria-label": called, "data-key": `toggle ${index}`, onkeydown: (/** @type {KeyboardEvent} */ event) => keyOnChip(event, index) },
      inPlace ? strength.before : called);
    const wasDragged = draggable(name, index);
    name.onclick = () => wasDragged() || wire.request("toggle", { index });
    const number = strength && h("input", { type: "number", step: "any", class: "iw-chip__strength", value: strength.value, "aria-label": `strength of ${called}`,
      "data-key": `strength ${index}`, style: `width: ${Math.max(4, String(strength.value).length + 3)}ch`, onblur: () => setTimeout(draw), onchange: () => {
        if (!number) return;
        number.defaultValue = number.value; // nothing more is being typed
        const at = now(index);
        if (at >= 0 && Number.isFinite(number.valueAsNumber)) wire.request("set_strength", { index: at, value: number.valueAsNumber });
        setTimeout(draw); // when the focus is where it goes
      } });
    return h("span", { class: "iw-chip", role: "listitem", "data-on": experiment.on ? "true" : "false", "data-index": index },
      editing?.kind === "name" && editing.index === index ? nameInput(experiment.name || label, `name of ${label}`, `toggle ${index}`) : name,
      number, inPlace && strength.after ? h("span", { class: "iw-chip__after" }, strength.after) : null,
      experiment.note ? h("span", { class: "iw-chip__note" }, experiment.note) : null,
      more(`menu ${index}`, called, actions(experiment, index)),
      h("button", { type: "button", class: "iw-chip__remove", "aria-label": `Remove ${called}`, "data-key": `remove ${index}`,
        onclick: () => wire.request("remove", { index }) }, "×"));
  }
  /** @param {Experiment} experiment @param {number} index @returns {[string, () => void][]} */
  function actions(experiment, index) {
    const count = all().length;
    /** @type {[string, () => void, unknown][]} */
    const every = [
      ["Rename", () => rename(index), true],
      ["Move earlier", () => moveBy(index, -1), index > 0],
      ["Move later", () => moveBy(index, 1), index < count - 1],
      ["Group with the one before", () => wire.request("group", joined(all(), index)), index > 0 && (!experiment.group || all()[index - 1].group !== experiment.group)],
      ["Take out of its group", () => wire.request("group", { indices: [index], name: "" }), experiment.group],
    ];
    return every.filter(([, , fits]) => fits).map(([text, act]) => [text, act]);
  }
  /** @param {Cluster} cluster */
  function grouped({ group, members }) {
    const chips = members.map((index) => chip(all()[index], index));
    if (!group) return chips;
    const on = members.some((index) => all()[index].on);
    const head = editing?.kind === "group" && editing.group === group
      ? nameInput(group, `name of ${group}`, `group ${group}`)
      : h("button", { type: "button", class: "iw-chip__name iw-group__name", "aria-pressed": on ? "true" : "false", title: "Switch the whole group",
        "data-key": `group ${group}`, onclick: () => wire.request("toggle_group", { group }) }, group);
    return [h("span", { class: "iw-group", role: "listitem", "data-on": on ? "true" : "false" }, head,
      more(`group menu ${group}`, group, [
        ["Rename", () => { editing = { kind: "group", group }; }],
        ["Take apart", () => wire.request("rename_group", { group, name: "" })],
        ["Remove all of it", () => wire.request("remove_group", { group })],
      ]),
      h("span", { class: "iw-group__chips", role: "list", "aria-label": group }, ...chips))];
  }
  /** @param {boolean} [anew] */
  function draw(anew = false) {
    const experiments = all();
    const apart = wire.model.get("linked") === false;
    const { labels, differs } = pinnedIn(wire.model);
    const key = JSON.stringify([experiments, apart, labels, differs]);
    if (step && wire.status().id >= step.id) step = null;
    // What has not changed stays, and so does what somebody is typing in, until that is done.
    const typed = list.querySelector("input:focus");
    if (!anew && (key === shown || editing || (typed instanceof HTMLInputElement && typed.value !== typed.defaultValue))) return;
    shown = key;
    const earlier = drawn;
    drawn = experiments;
    const follow = (/** @type {string} */ held) => held.replace(/^(toggle|strength|menu|remove) (\d+)/, (same, kind, index) => {
      const at = indexIn(experiments, earlier, Number(index));
      return at < 0 ? same : `${kind} ${at}`;
    });
    open &&= follow(open);
    if (step) step.index = indexIn(experiments, earlier, step.index);
    keepFocus(el, () => {
      drawPinned(labels, differs);
      fill(list,
        experiments.length ? h("div", { class: "iw-chips__list", role: "list", "aria-label": "Experiments" }, ...clusters(experiments).flatMap(grouped)) : null,
        experiments.length > 1 ? h("button", { type: "button", class: "iw-button", "data-key": "clear", onclick: () => wire.request("clear") }, "Remove all") : null,
        differs && experiments.some(({ on }) => on) ? h("button", { type: "button", class: "iw-button", "data-key": "pin", title: `What acts now becomes what every view compares with; now that is ${baselineWords(wire.model)}`,
          onclick: () => wire.request("pin") }, "Pin as baseline") : null,
        experiments.length ? null : h("span", { class: "iw-hint" }, "none: this is the model as it is"),
        apart ? h("span", { class: "iw-hint" }, `${experiments.length ? "" : "· "}detached: other widgets' experiments do not act here`) : null);
    }, follow);
    const opened = list.querySelector(".iw-menu__list");
    if (opened) attribute(opened, "data-side", opened.getBoundingClientRect().right > list.getBoundingClientRect().right ? "end" : null);
    const input = editing && list.querySelector(".iw-chip__input");
    if (input instanceof HTMLInputElement) {
      input.focus();
      input.select();
    }
  }
  /** @param {string[]} labels @param {boolean} differs */
  function drawPinned(labels, differs) {
    pinned.hidden = !labels.length;
    fill(pinned, h("span", { class: "iw-row__label" }, "baseline"), h("div", { class: "iw-chips" },
      h("span", { class: "iw-chips__list", role: "list", "aria-label": "Baseline" }, ...labels.map((label) => h("span", { class: "iw-chip iw-baseline__label", role: "listitem" }, label))),
      h("button", { type: "button", class: "iw-button", "data-key": "pin", title: "Compare with the model as it is", onclick: () => wire.request("unpin") }, "Unpin"),
      differs ? null : h("span", { class: "iw-hint" }, "it is what acts now: nothing differs")));
  }
  return {
    el,
    update: () => draw(),
  };
}
