// Links of detail actions that change something are sent as a POST with the page's CSRF token.
// Without this script they lead to a page that asks first.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-post]");
  const token = document.querySelector("input[name=csrfmiddlewaretoken]");
  if (!link || !token || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  if (link.getAttribute("aria-disabled") === "true") return;
  link.setAttribute("aria-disabled", "true");
  link.style.opacity = "0.6";
  link.lastChild.textContent = " " + link.dataset.post;
  const form = document.createElement("form");
  form.method = "post";
  form.action = link.href;
  form.append(token.cloneNode());
  document.body.append(form);
  form.submit();
});

// Coming back by the browser's back button shows the page as it was left.
window.addEventListener("pageshow", (event) => {
  if (event.persisted && document.querySelector("a[data-post][aria-disabled]")) location.reload();
});
