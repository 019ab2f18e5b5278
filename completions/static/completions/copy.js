// Buttons with data-copy="id" copy the text of that element.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const said = button.dataset.said || (button.dataset.said = button.textContent.trim());
  try {
    await navigator.clipboard.writeText(source.value ?? source.textContent);
    button.textContent = "Copied";
  } catch {
    // No clipboard without TLS: leave the text selected, ready for the keyboard.
    if (source.select) source.select();
    else getSelection().selectAllChildren(source);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => { button.textContent = said; }, 2500);
});
