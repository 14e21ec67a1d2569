// A patient's link has its secret behind "#", which no browser sends and no server logs: it goes into
// the form, and out of the address and the history.
const field = document.getElementById("link");
if (location.hash.length > 1) {
  field.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
}
if (field.value) document.getElementById("link-field").hidden = true;
