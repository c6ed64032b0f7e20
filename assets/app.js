// What the page does on every tab, beyond gradio: photos that are pasted or dropped anywhere, lists, and spoken words.
() => {
  const give = file => {
    const box = document.getElementById('at-photo'), input = box?.offsetParent && box.querySelector('input[type=file]');
    if (!input || !file) return false;
    const files = new DataTransfer();
    files.items.add(file);
    input.files = files.files;
    return input.dispatchEvent(new Event('change', {bubbles: true}));
  };

  document.addEventListener('paste', event => {
    const photo = [...event.clipboardData.files].find(file => file.type.startsWith('image/'));
    if (!event.target.closest?.('input, textarea') && give(photo)) event.preventDefault();
  });

  // a browser would leave the page for a file that is dropped beside its place
  for (const kind of ['dragover', 'drop'])
    document.addEventListener(kind, event => {
      if (event.defaultPrevented || !event.dataTransfer?.types.includes('Files')) return;
      event.preventDefault();
      if (kind === 'drop') give(event.dataTransfer.files[0]);
    });

  // gradio opens a list again when the Tab key leaves it, above whatever comes next
  const isList = element => element.matches?.('input[role="combobox"]');
  window.addEventListener('keydown', event => {
    if (event.key === 'Tab' && isList(event.target)) event.stopImmediatePropagation();
  }, true);

  // beside a long gallery the other column stays in sight: where it is higher than the window, its lower end
  const stay = () => {
    for (const side of document.querySelectorAll('.at-side'))
      side.style.setProperty('--at-top', `${Math.min(0, innerHeight - side.offsetHeight)}px`);
  };
  for (const kind of ['scroll', 'resize']) window.addEventListener(kind, stay, {passive: true});

  // what is typed into a list searches it: it takes the place of the choice instead of following it
  let entered = null;
  document.addEventListener('focusin', event => entered = isList(event.target) ? event.target : null);
  document.addEventListener('click', event => {
    if (event.target === entered) entered.select();
    entered = null;
  });

  // Explain and Cancel take turns: the one that is switched off hands its focus to the other, where it would be lost
  let held = null;
  document.addEventListener('focusin', event => held = event.target);
  document.addEventListener('pointerdown', () => held = null);
  // who holds Enter down on Explain shall not press Cancel by it
  document.addEventListener('keydown', event => {
    if (event.repeat && event.key === 'Enter' && event.target.matches?.('button')) event.preventDefault();
  });
  const handOn = () => {
    if (!held?.disabled || ![document.body, held].includes(document.activeElement)) return;
    const other = {explain: 'cancel', cancel: 'explain'}[held.id.split('-').at(-1)];
    const next = other && document.getElementById(held.id.replace(/[a-z]+$/, other));
    if (next && !next.disabled) next.focus({preventScroll: true});
  };

  // gradio gives the photo no words
  const nameThePhoto = () => {
    const photo = document.querySelector('#at-photo img');
    const words = document.querySelector('#at-predictions button')?.innerText.split('\n');
    const told = words ? `Your photo; the model's first guess: ${words.join(', ')}` : 'Your photo';
    if (photo && photo.alt !== told) photo.alt = told;
  };

  // what is wrong with a photo is told below it: outside of a small window
  let wrong = null;
  const showWhatIsWrong = () => {
    const told = document.querySelector('#at-predictions .at-error');
    if (told && told !== wrong) told.scrollIntoView({block: 'nearest'});
    wrong = told;
  };

  // progress is written anew several times a second; it is spoken when its words change
  const spoken = Object.assign(document.createElement('div'), {className: 'at-heard', ariaLive: 'polite'}), last = {};
  document.body.append(spoken);
  new MutationObserver(() => {
    handOn();
    nameThePhoto();
    showWhatIsWrong();
    for (const words of document.querySelectorAll('.at-status:not(.at-error) > span')) {
      const place = words.closest('[id]').id;
      if (last[place] !== words.textContent) spoken.textContent = last[place] = words.textContent;
    }
  }).observe(document.body, {
    childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ['disabled']});
}
