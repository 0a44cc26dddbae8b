// Zooming and panning of what scrolls: the wheel with Ctrl or ⌘ (a trackpad's pinch arrives as that), two fingers, dragging.

import { enlarged } from "./dom.js";

/** Pixels that a pointer moves before a press is a drag and no click. */
const STEADY = 4;

/**
 * @param {HTMLElement} scroller
 * @param {(factor: number, at: {clientX: number, clientY: number}) => boolean} onZoom false leaves the gesture to the page
 * @param {AbortSignal} signal
 */
export function followGestures(scroller, onZoom, signal) {
  /** @type {Map<number, {clientX: number, clientY: number}>} fingers */
  const fingers = new Map();
  let apart = 0;
  /** @type {{x: number, y: number, left: number, top: number} | null} where a press began */
  let pressed = null;
  let dragged = false;
  const distance = () => {
    const [one, two] = [...fingers.values()];
    return Math.hypot(one.clientX - two.clientX, one.clientY - two.clientY);
  };
  scroller.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    if (onZoom(Math.exp(-Math.max(-60, Math.min(60, pixels)) / 150), event)) event.preventDefault();
  }, { signal, passive: false });
  scroller.addEventListener("pointerdown", (event) => {
    dragged = false;
    if (event.pointerType === "touch") {
      fingers.set(event.pointerId, event);
      apart = fingers.size === 2 ? distance() : 0;
    } else if (event.button === 0) pressed = { x: event.clientX, y: event.clientY, left: scroller.scrollLeft, top: scroller.scrollTop };
  }, { signal });
  scroller.addEventListener("pointermove", (event) => {
    if (fingers.has(event.pointerId)) {
      fingers.set(event.pointerId, event);
      if (!apart) return;
      const [one, two] = [...fingers.values()];
      const factor = distance() / apart;
      if (Math.abs(Math.log(factor)) < 0.05) return;
      apart = distance();
      dragged = true;
      onZoom(factor, { clientX: (one.clientX + two.clientX) / 2, clientY: (one.clientY + two.clientY) / 2 });
    } else if (pressed && event.buttons & 1) {
      const zoom = enlarged(scroller);
      const [across, down] = [(event.clientX - pressed.x) / zoom, (event.clientY - pressed.y) / zoom];
      if (!dragged && Math.hypot(across, down) < STEADY) return;
      if (!dragged) scroller.setPointerCapture(event.pointerId);
      dragged = true;
      scroller.scrollTo(pressed.left - across, pressed.top - down);
    }
  }, { signal });
  for (const end of /** @type {const} */ (["pointerup", "pointercancel"])) scroller.addEventListener(end, (event) => {
    fingers.delete(event.pointerId);
    [apart, pressed] = [0, null];
  }, { signal });
  // The click that ends a drag was none.
  scroller.addEventListener("click", (event) => {
    if (dragged) event.stopImmediatePropagation();
    dragged = false;
  }, { signal, capture: true });
}
