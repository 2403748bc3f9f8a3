"""Networks: STCN, XMem and Cutie behind one small protocol."""
