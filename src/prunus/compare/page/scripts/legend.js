// Which methods are drawn: chips in groups, each a switch.

/** Chips of all methods in groups; `isOn(name)`, and `toggle(name)` when one is pressed. */
function chips(names, isOn, toggle, point) {
  return h("div", { class: "legend" }, Object.entries(KINDS).map(([kind, label]) => {
    const here = names.filter((name) => (name === "dense" ? "control" : kindOf(name)) === kind);
    return here.length > 0 && h("div", { class: "group", role: "group", "aria-label": label },
      h("span", { class: "label", "aria-hidden": "true" }, label),
      here.map((name) => h("button", {
        type: "button", class: "chip", "data-method": name, "aria-pressed": String(isOn(name)),
        title: (DATA.methods[name] || {}).summary || "",
        onclick: () => toggle(name),
        onpointerenter: () => point && point(name), onpointerleave: () => point && point(null),
        onfocus: () => point && point(name), onblur: () => point && point(null),
      }, swatch(name), name)));
  }));
}

/** Say on chips that are there which of them are on. */
function press(place, isOn) {
  for (const chip of place.querySelectorAll(".chip")) chip.setAttribute("aria-pressed", String(isOn(chip.dataset.method)));
}
