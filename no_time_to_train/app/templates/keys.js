// Keyboard shortcuts: each presses the button that a click would press.
const KEYS = {
  ArrowLeft: "previous", ArrowRight: "next", r: "right", w: "wrong", o: "outline", Delete: "remove", Enter: "save", Escape: "cancel",
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input:not([type=radio]):not([type=checkbox]), textarea");
  const control = event.ctrlKey || event.metaKey;
  let name = control || event.altKey ? null : KEYS[event.key];
  if (control && event.key === "z") name = event.shiftKey ? "redo" : "undo";
  if (control && event.key === "y") name = "redo";
  if (!name || (typing && event.key !== "Escape")) return;
  const button = document.getElementById(name);
  if (button && button.offsetParent !== null && !button.disabled) {
    event.preventDefault();
    button.click();
  }
});
// Gradio takes a slider's value where the mouse lets go of it, or where the number next to it loses the focus.
document.addEventListener("keyup", (event) => {
  if (event.target.matches("input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.key)) {
    event.target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
  } else if (event.target.matches("input[type=number]") && event.key === "Enter") {
    event.target.blur();
  }
});
