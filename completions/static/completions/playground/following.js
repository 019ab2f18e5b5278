/** Keeps the newest text in view while it comes, until the reader goes elsewhere. */

const END = 6; // pixels from the end that still are the end
const LINE = 20; // pixels: some wheels count lines
const GLIDE_MS = 300; // that a view may go on gliding up from what was pressed before
const UP = ["PageUp", "ArrowUp", "Home"];

export class Following {
  /** @param {any} scroller @param {any} latest the button that goes to the end */
  constructor(scroller, latest) {
    this.scroller = scroller;
    this.latest = latest;
    this.isOn = true;
    this.top = 0; // where the view was last
    this.finger = 0;
    this.reachedAt = -GLIDE_MS; // when the reader last went to the end
    const quietly = { passive: true };
    scroller.addEventListener("scroll", () => this.scrolled(), quietly);
    scroller.addEventListener("wheel", (/** @type {WheelEvent} */ event) => this.rolled(event), quietly);
    scroller.addEventListener("touchstart", (/** @type {TouchEvent} */ event) => { this.finger = event.touches[0].clientY; }, quietly);
    scroller.addEventListener("touchmove", (/** @type {TouchEvent} */ event) => this.dragged(event.touches[0].clientY), quietly);
    scroller.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.pressed(event));
    latest.addEventListener("click", () => this.follow());
    new ResizeObserver(() => this.settle()).observe(scroller);
  }

  get left() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  /** What is shown grew or shrank. */
  settle() {
    const { scroller } = this;
    if (scroller.scrollHeight - scroller.clientHeight <= END) this.turn(true);
    if (this.isOn) scroller.scrollTop = scroller.scrollHeight;
    this.top = scroller.scrollTop;
  }

  follow() {
    this.turn(true);
    this.settle();
  }

  /** The reader wants to see what was before, even if the view has not moved yet. */
  leave() {
    if (this.scroller.scrollTop > 0) this.turn(false);
  }

  scrolled() {
    const { top } = this;
    this.top = this.scroller.scrollTop;
    if (this.top > top && this.left <= END) this.turn(true);
    else if (this.top < top && this.left > END && performance.now() - this.reachedAt > GLIDE_MS) this.turn(false);
  }

  /** Text that comes moves the end on while the view glides there: a step that reaches it is enough. @param {WheelEvent} event */
  rolled({ deltaY, deltaMode, ctrlKey }) {
    if (ctrlKey) return; // it zooms
    if (deltaY < 0) this.leave();
    else if (deltaY > 0) this.reach(deltaMode ? deltaY * LINE : deltaY);
  }

  /** @param {number} step down, in pixels */
  reach(step) {
    if (this.left > END + step) return;
    this.reachedAt = performance.now();
    this.turn(true);
  }

  /** @param {number} to where the finger is: it draws earlier text down into view */
  dragged(to) {
    if (to > this.finger) this.leave();
    this.finger = to;
  }

  /** @param {KeyboardEvent} event */
  pressed({ key, target }) {
    if (/** @type {Element} */ (target).matches("textarea, select, input")) return;
    if (UP.includes(key)) this.leave();
    else if (key === "PageDown") this.reach(this.scroller.clientHeight);
    else if (key === "End") this.follow();
  }

  /** @param {boolean} isOn */
  turn(isOn) {
    this.isOn = isOn;
    this.latest.hidden = isOn;
  }
}
