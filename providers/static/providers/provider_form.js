// Choosing a vendor fills in the provider form; the names typed among the models are offered as default model.
document.addEventListener("DOMContentLoaded", () => {
  const source = document.getElementById("provider-presets");
  const field = (name) => document.getElementById("id_" + name);
  if (!source || !field("preset")) return;
  const presets = JSON.parse(source.textContent);
  let last = presets[field("preset").value];

  const note = document.createElement("p");
  note.className = "leading-relaxed mt-2 text-xs max-w-2xl";
  note.setAttribute("aria-live", "polite");
  field("preset").closest("div").after(note);
  const explain = (preset) => {
    note.replaceChildren();
    if (!preset) return;
    field("base_url").placeholder = preset.base_url_hint;
    if (preset.note) note.append(preset.note + " ");
    if (preset.key_url) {
      const link = document.createElement("a");
      link.href = preset.key_url;
      link.rel = "noreferrer";
      link.target = "_blank";
      link.className = "text-link underline";
      link.textContent = "Where to get a key";
      note.append(link);
    }
  };

  const set = (name, value) => {
    field(name).value = value;
    field(name).dispatchEvent(new Event("change", { bubbles: true }));
  };
  const nameInputs = () => [...document.querySelectorAll("input[id^=id_models-][id$=-name]:not([id*=__prefix__])")]
    .filter((input) => !input.id.endsWith("-public_name"));
  // What the vendor chosen before had filled in is replaced; what a person typed stays.
  const replaceable = (value, filled) => !value || value === filled;

  field("preset").addEventListener("change", () => {
    const preset = presets[field("preset").value];
    explain(preset);
    if (!preset) return;
    set("type", preset.type);
    set("base_url", preset.base_url);
    const ownSlug = !replaceable(field("slug").value, last?.slug);  // asked first: a name fills an empty slug
    if (replaceable(field("name").value, last?.label)) set("name", preset.label);
    if (!ownSlug) field("slug").value = field("preset").value;
    const rows = nameInputs();
    if (rows.length === 1 && replaceable(rows[0].value, last?.models[0])) {
      rows[0].value = preset.models[0] || "";
      set("default_model", rows[0].value);
    }
    last = { ...preset, slug: field("preset").value };
    offer();
  });

  const names = document.createElement("datalist");
  names.id = "model-names";
  document.body.append(names);
  field("default_model").setAttribute("list", names.id);
  const offer = () => {
    names.replaceChildren(...nameInputs().filter((input) => input.value).map((input) => new Option(input.value)));
  };
  document.addEventListener("input", (event) => {
    if (event.target.matches("input[id^=id_models-]")) offer();
  });
  // The first model that is named is the default until another is chosen.
  document.addEventListener("change", (event) => {
    if (event.target.matches("#id_models-0-name") && !field("default_model").value) {
      set("default_model", event.target.value);
    }
  });
  explain(last);
  offer();
});
