"""What components do in the browser: scripts that gradio hands to them, or runs with an event."""

from __future__ import annotations

# the page is told which button was pressed; what replaces the buttons gets the focus back
_REFOCUS = """
let pressed = null;
new MutationObserver(() => {
  const button = pressed && element.querySelector(pressed);
  if (button && document.activeElement === document.body) button.focus({preventScroll: true});
}).observe(element, {childList: true, subtree: true});
"""

CHOOSE = (
    _REFOCUS
    + """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-index]');
  if (!button) return;
  pressed = `button[data-index="${button.dataset.index}"]`;
  trigger('click', {index: Number(button.dataset.index)});
});"""
)

# what a visitor has opened stays open when the cards are drawn anew
_OPENED = """
const opened = new Map();
const named = details => [
  details.closest('[aria-label]')?.ariaLabel,
  (details.querySelector('.at-asked') ?? details.firstElementChild)?.textContent].join();
element.addEventListener('toggle', event => opened.set(named(event.target), event.target.open), true);
new MutationObserver(() => {
  for (const details of element.querySelectorAll('details'))
    if (opened.has(named(details))) details.open = opened.get(named(details));
}).observe(element, {childList: true, subtree: true});
"""

# a check is told in its card as well: the status may be far up the page
_FOLLOWED = """
const beside = name => document.getElementById(element.closest('[id$="-gallery"]').id.replace('gallery', name));
const offered = button => {
  delete button.dataset.running;
  [button.textContent, button.ariaLabel] = ['Check this map', button.dataset.label];
  for (const each of element.querySelectorAll('button[data-check]')) each.disabled = false;
};
const follow = (told, button) => {
  const status = beside('status'), copy = () => told.replaceChildren(
    ...[...status.querySelectorAll('span, progress')].map(node => node.cloneNode(true)));
  const observer = new MutationObserver(() => {
    if (element.contains(told)) copy(); else return observer.disconnect();
    if (!status.querySelector('.at-error')) return;
    observer.disconnect();  // it was cancelled or failed: the cards are as they were, so gradio draws none anew
    offered(button);
  });
  observer.observe(status, {childList: true, subtree: true, characterData: true, attributes: true});
};
const check = button => {
  if (button.dataset.running) return beside('cancel').click();
  for (const other of element.querySelectorAll('button[data-check]')) other.disabled = other !== button;
  button.dataset.running = 'yes';
  button.dataset.label = button.ariaLabel;
  button.textContent = button.ariaLabel = 'Cancel the check';
  pressed = `[data-evidence="${button.dataset.check}"]`;
  follow(button.parentElement.querySelector('.at-told'), button);
  trigger('submit', {method: button.dataset.check});
};
"""

# cards have buttons for files and for checks, triangular maps have rows
ACT = (
    _REFOCUS
    + _OPENED
    + _FOLLOWED
    + """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-action]'), row = event.target.closest('[data-index]');
  const asked = event.target.closest('button[data-check]');
  if (asked) check(asked);
  else if (button) trigger('click', {action: button.dataset.action});
  else if (row) {
    const region = row.closest('.at-triangle'), all = [...element.querySelectorAll('.at-triangle')];
    pressed = `.at-triangle:nth-of-type(${all.indexOf(region) + 1}) button[data-index="${row.dataset.index}"]`;
    trigger('select', {index: Number(row.dataset.index)});
  }
});"""
)

# what a handler has written is saved without a second click
SAVE = """(file) => {
  if (!file) return;
  const link = document.createElement('a');
  link.href = file.url; link.download = file.orig_name || ''; link.click();
}"""

SHOW_LINK = """(query) => {
  history.replaceState(null, '', query ? '?' + query : location.pathname);
  return location.href;
}"""

# it appears below what the window shows
FIND_LINK = """() => setTimeout(() => {{
  const link = document.getElementById('{name}');
  link?.scrollIntoView({{block: 'nearest'}});
  link?.querySelector('input, textarea')?.select();
}}, 100)"""
