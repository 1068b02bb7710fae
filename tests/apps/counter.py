"""A page with a counter, a file, and the user's name as the proxy gives it."""

import streamlit as st

st.write(f"Hello {st.context.headers.get('X-User', 'nobody')}")
st.session_state.setdefault("count", 0)
if st.button("Count"):
    st.session_state.count += 1
st.write(f"Pressed {st.session_state.count} times")
file = st.file_uploader("File")
if file:
    st.write(f"Got {len(file.getvalue())} bytes")
